import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.exceptions import CalibrationError
from simulator.hardware import PRESETS, hardware, read_calibration, shipped_names
from simulator.step_cost import LinearCost

FOLDER = Path(__file__).parents[2] / "simulator" / "calibration"
NAMES = ["2xh100-qwen3-32b", "a100-llama-3.1-8b", "h100-llama-3.1-8b", "l40s-llama-3.1-8b"]

names = st.sampled_from(NAMES)
batches = st.integers(1, 2_000)
contexts = st.integers(0, 300_000)
pieces = st.integers(1, 20_000)


def test_every_shipped_calibration_is_tested() -> None:
    assert shipped_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_costs_equal_the_rows_of_the_table(name: str) -> None:
    table, cost = read_calibration(FOLDER / f"{name}.csv"), hardware(name).cost
    factor = table.kernel_factor
    for (tokens, _), ms in table.dense.items():
        assert cost.dense_ms(tokens) == pytest.approx(table.host_ms + factor * ms)
    for (tokens, context), ms in table.prefill_attention.items():
        assert cost.prefill_attention_ms(tokens, context) == pytest.approx(factor * ms, rel=1e-4)
    for (batch, context), ms in table.decode_attention.items():
        assert cost.decode_attention_ms(batch, batch * context) == pytest.approx(factor * ms, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_more_tokens_never_takes_less(name: str) -> None:
    steps = [hardware(name).cost.dense_ms(tokens) for tokens in range(1, 9_000)]
    assert all(fewer <= more for fewer, more in itertools.pairwise(steps))


@given(names, batches, contexts, st.integers(0, 100_000))
def test_decodes_of_more_context_never_take_less(name: str, batch: int, context: int, more: int) -> None:
    cost = hardware(name).cost
    less_ms = cost.decode_attention_ms(batch, batch * context)
    assert 0 < less_ms <= cost.decode_attention_ms(batch, batch * (context + more))


@given(names, batches, contexts, st.integers(0, 500))
def test_a_larger_batch_of_equal_contexts_never_takes_less(name: str, batch: int, context: int, more: int) -> None:
    cost = hardware(name).cost
    smaller_ms = cost.decode_attention_ms(batch, batch * context)
    larger_ms = cost.decode_attention_ms(batch + more, (batch + more) * context)
    assert smaller_ms <= larger_ms * (1 + 1e-9)


@given(names, pieces, contexts, st.integers(0, 9_000), st.integers(0, 100_000))
def test_a_piece_of_more_tokens_or_context_never_takes_less(
    name: str, tokens: int, context: int, more_tokens: int, more_context: int
) -> None:
    cost = hardware(name).cost
    least = cost.prefill_attention_ms(tokens, context)
    assert 0 < least <= cost.prefill_attention_ms(tokens + more_tokens, context) * (1 + 1e-9)
    assert least <= cost.prefill_attention_ms(tokens, context + more_context) * (1 + 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_attention_to_a_long_prompt_grows_with_its_square(name: str) -> None:
    cost = hardware(name).cost
    assert 3.5 < cost.prefill_attention_ms(131_072, 0) / cost.prefill_attention_ms(65_536, 0) < 4.1


@pytest.mark.parametrize("name", NAMES)
def test_decode_attention_beyond_the_table_grows_with_kv_tokens(name: str) -> None:
    cost = hardware(name).cost
    assert 1.7 < cost.decode_attention_ms(64, 64 * 400_000) / cost.decode_attention_ms(64, 64 * 200_000) < 2.1


@pytest.mark.parametrize(
    ("name", "expected_ms"),
    [
        ("h100-llama-3.1-8b", (5.9, 8.1, 12.2, 18.8)),
        ("a100-llama-3.1-8b", (11.5, 14.9, 23.7, 43.3)),
        ("l40s-llama-3.1-8b", (21, 30, 52, 76)),
        ("2xh100-qwen3-32b", (12.9, 15.9, 21.7, 29.5)),
    ],
)
def test_decode_steps_match_an_independent_composition(name: str, expected_ms: tuple[float, ...]) -> None:
    """Decode steps with 1,024 tokens of context each."""
    table, cost = read_calibration(FOLDER / f"{name}.csv"), hardware(name).cost
    for batch, expected in zip((1, 32, 128, 256), expected_ms, strict=True):
        step_ms = cost.dense_ms(batch) + cost.decode_attention_ms(batch, batch * 1_024)
        assert (step_ms - table.host_ms) / table.kernel_factor == pytest.approx(expected, rel=0.07)


def test_a_prompt_lengthens_a_step() -> None:
    for name in NAMES:
        cost = hardware(name).cost
        alone = cost.dense_ms(32) + cost.decode_attention_ms(32, 32_000)
        shared = cost.dense_ms(32 + 2_000) + cost.prefill_attention_ms(2_000, 0) + cost.decode_attention_ms(32, 32_000)
        assert shared > 2 * alone


@given(st.integers(0, 1_000), st.integers(0, 200), st.integers(0, 10**6))
def test_linear_costs_add_up(prefill_tokens: int, decodes: int, kv_tokens: int) -> None:
    cost = PRESETS["fast"].cost
    assert isinstance(cost, LinearCost)
    ms = cost.decode_attention_ms(decodes, kv_tokens)
    step_ms = cost.dense_ms(prefill_tokens + decodes) + cost.prefill_attention_ms(prefill_tokens, 100) + ms
    pairs = prefill_tokens * (100 + prefill_tokens // 2)
    expected = 22 + 0.25 * prefill_tokens + 8.0 * pairs / 1e6 + 0.2 * decodes + 0.25 * kv_tokens / 1e3
    assert step_ms == pytest.approx(expected)


def test_no_decodes_cost_nothing() -> None:
    for name in (*PRESETS, *NAMES):
        assert hardware(name).cost.decode_attention_ms(0, 0) == 0


def test_limits_are_those_of_the_file() -> None:
    imitated = hardware("l40s-llama-3.1-8b")
    assert (imitated.name, imitated.max_num_seqs, imitated.max_num_batched_tokens) == ("l40s-llama-3.1-8b", 256, 2_048)
    assert 150_000 < imitated.num_blocks * imitated.block_tokens < 250_000


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CalibrationError, match=r"'h100': expected fast, slow, 2xh100-qwen3-32b.*\.csv"):
        hardware("h100")
