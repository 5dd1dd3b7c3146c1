import itertools
from pathlib import Path

import pytest

from simulator.exceptions import TraceError
from simulator.prompt import token_count
from simulator.trace import cap_lengths, load_trace, scale_rate, window
from simulator.wire import ChatCompletion, Message
from simulator.workload import plan


def test_the_trace_that_ships_is_read() -> None:
    trace = load_trace()
    assert len(trace) == 2000
    assert trace[0].arrival_s == 0
    assert all(earlier.arrival_s <= later.arrival_s for earlier, later in itertools.pairwise(trace))


def test_a_rate_is_met_and_the_pattern_kept() -> None:
    trace = scale_rate(load_trace()[:101], 10.0)
    assert trace[-1].arrival_s == pytest.approx(10.0)


def test_a_window_fills_its_time_and_goes_round_the_end() -> None:
    trace = load_trace()[:10]
    requests = window(trace, first=7, requests_per_s=5.0, seconds=4.0)
    assert len(requests) == 20
    assert [r.prompt_tokens for r in requests[:4]] == [r.prompt_tokens for r in (*trace[7:], trace[0])]
    assert requests[0].arrival_s == 0
    assert requests[-1].arrival_s == pytest.approx(19 / 5.0)


def test_lengths_are_capped() -> None:
    capped = cap_lengths(load_trace(), max_prompt=500, max_output=50)
    assert max(r.prompt_tokens for r in capped) == 500
    assert max(r.output_tokens for r in capped) == 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", "line 1: no column arrival_s"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1,1\n0,x,1\n", "line 3"),
        ("arrival_s,prompt_tokens,output_tokens\n0,0,1\n", "line 2: expected"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1\n", "line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=expected):
        load_trace(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"absent\.csv"):
        load_trace(tmp_path / "absent.csv")


def test_a_plan_repeats_by_seed_and_differs_in_text_by_salt() -> None:
    trace = load_trace()[:20]
    one, again, other = (plan(trace, seed=3, salt=salt) for salt in ("a", "a", "b"))
    assert one == again
    assert [r.slo_ttft_ms for r in one] == [r.slo_ttft_ms for r in other]
    assert not {r.prompt for r in one} & {r.prompt for r in other}
    assert not {r.id for r in one} & {r.id for r in other}


def test_a_planned_prompt_has_the_traces_length() -> None:
    for request in plan(load_trace()[:50], seed=3):
        body = ChatCompletion(model="m", messages=[Message("user", request.prompt)])
        assert token_count(body.text()) == max(request.prompt_tokens, 8)
