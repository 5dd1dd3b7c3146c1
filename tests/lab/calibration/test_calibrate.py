import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.calibration.composition import calibration, decode_attention, dense, prefill_attention
from lab.calibration.errors import left_out
from lab.calibration.kernels import Kernels, all_reduce_times, decode_times, gemm_ms, gemm_times, prompt_times
from lab.calibration.pairs import LLAMA_8B, PAIRS
from lab.calibration.served import Served, imitate, served_cases
from simulator.calibration_file import format_calibration, parse_calibration
from simulator.hardware import hardware, shipped_names
from tests.live import PATIENCE_S

SCRIPT = Path(__file__).parents[3] / "scripts" / "calibrate.py"
FOLDER = Path(__file__).parents[3] / "simulator" / "calibration"
PAIR = PAIRS[0]
SIZES = (1, 16, 256, 1_024, 8_192)
WIDTHS = (1_024, 4_096, 16_384, 65_536)
# Interpolation and extrapolation must reproduce each of these laws exactly.
KERNELS = Kernels(
    gemm={(m, n, k): m * n * k / 1e12 for m in SIZES for n in WIDTHS for k in WIDTHS},
    prompt={tokens: tokens**2 / 1e7 for tokens in (*SIZES, 16_384)},
    decode={
        (batch, context): batch * context / 1e7
        for batch in (1, 4, 16)
        for context in (1, 1_000, 10_000)
        if batch * context < 100_000
    },
    all_reduce={},
)


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def test_dense_sums_the_products_of_all_layers() -> None:
    layer = 4_096 * (4_096 + 2 * 1_024) + 4_096 * 4_096 + 3 * 4_096 * 14_336
    for (tokens, _), ms in dense(KERNELS, PAIR).items():
        output = min(tokens, 256) * 4_096 * 128_256
        assert ms == pytest.approx((32 * tokens * layer + output) / 1e12)


def test_two_accelerators_halve_the_products_and_add_all_reduces() -> None:
    two = dataclasses.replace(PAIR, gpus=2)
    sizes = {values: values / 1e9 for values in (4_096, 1 << 26)}
    kernels = dataclasses.replace(KERNELS, all_reduce={"vllm_graph": sizes, "vllm_eager": sizes})
    one, halves = dense(KERNELS, PAIR), dense(kernels, two)
    for tokens in SIZES:
        assert halves[tokens, 0] == pytest.approx(one[tokens, 0] / 2 + 32 * 2 * tokens * 4_096 / 1e9)


def test_a_piece_after_a_context_takes_the_time_of_its_pairs() -> None:
    for (tokens, context), ms in prefill_attention(KERNELS, PAIR).items():
        if tokens >= 16:  # a shorter piece takes as long as reading its context
            assert ms == pytest.approx(32 * ((tokens + context) ** 2 - context**2) / 1e7)


def test_a_short_piece_takes_as_long_as_reading_its_context() -> None:
    slow = dataclasses.replace(KERNELS, decode={at: 100 * ms for at, ms in KERNELS.decode.items()})
    assert prefill_attention(slow, PAIR)[1, 8_192] == pytest.approx(32 * 100 * 8_192 / 1e7)


def test_batches_too_large_to_measure_grow_in_proportion() -> None:
    found = decode_attention(KERNELS, PAIR)
    assert len(found) == 9
    for (batch, context), ms in found.items():
        assert ms == pytest.approx(32 * batch * context / 1e7)


def test_times_too_low_because_of_the_l2_cache_are_raised() -> None:
    quick = dataclasses.replace(KERNELS, decode=KERNELS.decode | {(4, 1_000): 1e-9})
    assert decode_attention(quick, PAIR)[4, 1_000] == pytest.approx(32 * 4_000 / 1e7)


def test_a_composed_calibration_can_be_parsed() -> None:
    made = calibration(KERNELS, PAIR, source="made up", host_ms=2.0, kernel_factor=1.2)
    read = parse_calibration(format_calibration(made), "made")
    assert read.limits == made.limits
    assert read.dense == pytest.approx(made.dense, rel=1e-4)
    assert read.decode_attention == pytest.approx(made.decode_attention, rel=1e-4)


def test_products_are_interpolated_and_extrapolated() -> None:
    assert gemm_ms(KERNELS.gemm, 16, 28_672, 14_336) == pytest.approx(16 * 28_672 * 14_336 / 1e12)
    assert gemm_ms(KERNELS.gemm, 16, 128_256, 4_096) == pytest.approx(16 * 128_256 * 4_096 / 1e12)


def attention(**other: Any) -> dict[str, Any]:
    own = {"num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "attn_dtype": "bfloat16"}
    more = {"kv_cache_dtype": "bfloat16", "window_size": 0, "batch_size": 1, "isl": 64, "step": 7, "latency": 1.0}
    return own | more | other


@pytest.mark.parametrize(
    "other",
    [{"num_heads": 16}, {"num_key_value_heads": 4}, {"head_dim": 64}, {"kv_cache_dtype": "fp8"}, {"window_size": 128}],
)
def test_only_rows_of_the_models_attention_are_read(other: dict[str, Any]) -> None:
    rows = [attention(), attention(latency=9.0, **other)]
    assert prompt_times(rows, PAIR) == {64: 1.0}
    assert decode_times(rows, PAIR) == {(1, 7): 1.0}


def test_rows_of_other_types_are_skipped() -> None:
    rows = [{"m": 1, "n": 2, "k": 3, "gemm_dtype": kind, "latency": 4.0} for kind in ("fp8", "bfloat16")]
    assert gemm_times(rows) == {(1, 2, 3): 4.0}
    assert prompt_times([attention(batch_size=2)], PAIR) == {}
    row = {"num_gpus": 2, "allreduce_dtype": "bfloat16", "message_size": 8, "latency": 1.0, "backend": "vllm_graph"}
    found = all_reduce_times([row, row | {"num_gpus": 4, "latency": 9.0}], dataclasses.replace(PAIR, gpus=2))
    assert found == {"vllm_graph": {8: 1.0}, "vllm_eager": {}}


def test_left_out_rows_are_interpolated_from_their_neighbours() -> None:
    points = {(1, 0): 1.0, (2, 0): 3.0, (3, 0): 3.0, (1, 5): 1.0, (1, 10): 2.0}
    assert dict(left_out(points)) == {(2, 0): pytest.approx(-1.0), (1, 5): pytest.approx(0.5)}


def test_blocks_fill_the_memory_that_is_left() -> None:
    tokens = PAIR.num_blocks() * 16
    held = tokens * 131_072 + 2 * LLAMA_8B.parameters + (2 << 30)
    assert 0.9 * PAIR.accelerator.memory_bytes - 16 * 131_072 < held <= 0.9 * PAIR.accelerator.memory_bytes


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_calibrations_pass_the_check(name: str, tmp_path: Path) -> None:
    result = run("check", FOLDER / f"{name}.csv", "--json", tmp_path / "figures.json")
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert figures["dense_left_out_median_pct"] < 5
    assert figures["decode_attention_left_out_of_step_median_pct"] < 1
    # The shipped tables are monotone already, up to rounding.
    assert max(value for key, value in figures.items() if key.endswith("monotone_pct")) < 0.01


def test_check_names_the_wrong_line(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    text = (FOLDER / f"{PAIR.name}.csv").read_text()
    line = text.count("\n") + 1
    file.write_text(text + "dense,1,0,fast\n")
    result = run("check", file)
    assert result.returncode == 1
    assert f"line {line}: ms: expected a number from 0 to 1e6, got 'fast'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_package_is_answered_with_how_to_install_it(tmp_path: Path) -> None:
    result = run("make", "--packages", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert f"pip install --no-deps --target {tmp_path} aiconfigurator-core==" in result.stderr
    assert "Traceback" not in result.stderr


def test_only_rows_of_the_wanted_server_are_read() -> None:
    row = {"system": "h100_sxm", "model_path": "m", "tp_size": "2", "backend": "vllm", "mode": "agg", "precision": ""}
    row |= {"batch_size": "8", "isl": "100", "osl": "10", "silicon_ttft_ms": "50.5", "silicon_tpot_ms": "7.5"}
    others = [row | {key: "other"} for key in ("system", "model_path", "tp_size", "backend", "mode", "precision")]
    assert served_cases([row, *others], "h100_sxm", "m", 2) == [Served(8, 100, 10, 50.5, 7.5)]


def test_a_single_client_never_queues() -> None:
    imitated = hardware("2xh100-qwen3-32b")
    cost = imitated.cost
    ours = imitate(imitated, Served(1, 1_024, 3, 0.0, 0.0))
    assert ours.ttft_ms == pytest.approx(cost.dense_ms(1_024) + cost.prefill_attention_ms(1_024, 0))
    assert ours.tpot_ms == pytest.approx(
        cost.dense_ms(1) + sum(cost.decode_attention_ms(1, n) for n in (1024, 1025)) / 2
    )


# Published measurements of vLLM 0.12 with this number of clients: a part of those that `calibrate.py compare` uses.
@pytest.mark.parametrize(("clients", "prompt", "output", "tpot_ms"), [(64, 1_024, 128, 46.0), (32, 4_096, 128, 75.0)])
def test_a_simulated_server_is_as_fast_as_the_measured_one(
    clients: int, prompt: int, output: int, tpot_ms: float
) -> None:
    ours = imitate(hardware("2xh100-qwen3-32b"), Served(clients, prompt, output, 0.0, tpot_ms))
    assert ours.tpot_ms == pytest.approx(tpot_ms, rel=0.1)
