"""A real engine and its twin are compared request by request; here the engine is a simulated server."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.calibration.server.twin import Twin
from lab.engines.comparison import journal
from lab.engines.comparison.__main__ import main
from lab.engines.comparison.errors import Pairs, figures, interval, relative
from lab.engines.comparison.journal import Record, Seen
from lab.engines.comparison.scenarios import MIXES, Lengths, Mix, capacity_rps, requests
from simulator.app import create_app
from simulator.calibration_file import format_calibration, parse_calibration
from simulator.config import Config
from simulator.hardware import measured_hardware
from tests.live import live

# Steps of half a millisecond and more, so that a test's run takes a second.
FAST = """\
# gpu: g
# model: m
# source: s
# licence: none
# num_blocks: 4000
# block_tokens: 16
# max_num_seqs: 16
# max_num_batched_tokens: 1024
# max_model_len: 8192
# host_ms: 0
# kernel_factor: 1
part,tokens,context,ms
dense,1,0,4
dense,1024,0,20
prefill_attention,1,0,0
prefill_attention,1,8192,0.1
prefill_attention,1024,0,1
prefill_attention,1024,8192,9
decode_attention,1,1,0
decode_attention,1,8192,0.2
decode_attention,16,1,1
decode_attention,16,8192,4
"""
HARDWARE = dataclasses.replace(measured_hardware("fast", parse_calibration(FAST, "")), scheduling_policy="priority")


def seen(*latencies: float | None) -> list[Seen]:
    return [Seen(ttft_ms=one, tpot_ms=one, e2e_ms=one) for one in latencies]


def test_errors_are_relative_and_leave_out_what_one_side_lacks() -> None:
    pairs = Pairs(seen(100.0, 200.0, None, 50.0), seen(110.0, 100.0, 10.0, None))
    assert relative(pairs, "ttft").tolist() == pytest.approx([0.1, -0.5])
    found = figures("engine", [pairs, Pairs(seen(10.0), seen(9.0))])
    assert found["engine_e2e_mdape"] == pytest.approx(10.0)
    assert found["engine_e2e_bias"] == pytest.approx(-10.0)
    assert found["engine_tpot_mdape_low"] <= found["engine_tpot_mdape"] <= found["engine_tpot_mdape_high"]
    assert figures("engine_repeat", []) == {}


def test_an_interval_is_wider_if_neighbours_are_alike() -> None:
    alike = Pairs(seen(*[100.0] * 400), seen(*[100.0 + 10.0 * (index // 20 % 2) for index in range(400)]))
    mixed = Pairs(seen(*[100.0] * 400), seen(*[100.0 + 10.0 * (index % 2) for index in range(400)]))
    widths = [high - low for low, high in (interval([relative(pairs, "e2e")]) for pairs in (alike, mixed))]
    assert widths[0] > widths[1]


def test_two_runs_have_the_same_shape_and_no_common_beginning() -> None:
    for mix in MIXES:
        first, again = (requests(mix, 1, salt, 10.0, 60, HARDWARE) for salt in ("a", "b"))
        shapes = [[dataclasses.replace(ask, prompt=(len(ask.prompt),)) for ask in asks] for asks in (first, again)]
        assert shapes[0] == shapes[1]
        assert not {ask.prompt[:16] for ask in first} & {ask.prompt[:16] for ask in again}
    leaving = next(mix for mix in MIXES if mix.leaving_share)
    assert any(ask.leave_s for ask in requests(leaving, 1, "a", 10.0, 60, HARDWARE))


def test_capacity_is_what_the_twin_keeps_up_with() -> None:
    mix = Mix("m", 1.0, prompts=Lengths(100, 400), outputs=Lengths(20, 40))
    rate = capacity_rps(mix, HARDWARE, 1)
    waits = []
    for load in (0.5, 1.5):
        timelines = Twin(HARDWARE).replay(requests(mix, 1, "a", load * rate, 300, HARDWARE))
        waits.append(timelines[-1].ttft_ms)
    assert waits[0] < 100 < waits[1]


def test_a_journal_is_read_without_a_line_that_was_cut_off(tmp_path: Path) -> None:
    file, record = tmp_path / "runs.jsonl", Record("m", 1, 2.5, (Seen(1.0, None, 2.0),))
    journal.append(file, record)
    with file.open("a") as lines:
        lines.write('{"mix": "m", "ru')
    assert journal.read(file) == {("m", 1): record}


@pytest.fixture
def url() -> Iterator[str]:
    config = Config(host="", port=0, name="pod", model="m", hardware=HARDWARE, speed_factor=1.0)
    with live(create_app(config)) as running:
        yield running


@pytest.mark.slow
def test_the_twin_of_a_simulated_server_is_like_it(url: str, tmp_path: Path) -> None:
    (tmp_path / "calibration.csv").write_text(format_calibration(parse_calibration(FAST, "")))
    flags = ["--server", url, "--folder", str(tmp_path), "--seconds", "1", "--only", "priorities"]
    # The second call finds both runs in the journal, and runs nothing.
    for _ in range(2):
        done = CliRunner().invoke(main, [*flags, "--json", str(tmp_path / "figures.json")])
        assert done.exit_code == 0, done.output
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2
    found = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert {"engine_ttft_mdape", "engine_tpot_mdape", "engine_e2e_bias", "engine_repeat_e2e_mdape"} <= found.keys()
    # A busy machine's steps take longer than they say.
    assert found["engine_e2e_mdape"] < 60
