import itertools
from pathlib import Path

import pytest

from simulator.exceptions import TraceError
from simulator.trace import cap_lengths, load_trace, scale_rate, window


def test_the_shipped_trace_is_read() -> None:
    trace = load_trace()
    assert len(trace) == 2000
    assert trace[0].arrival_s == 0
    assert all(earlier.arrival_s <= later.arrival_s for earlier, later in itertools.pairwise(trace))


def test_scaling_reaches_the_rate_and_keeps_the_pattern() -> None:
    trace = scale_rate(load_trace()[:101], 10.0)
    assert trace[-1].arrival_s == pytest.approx(10.0)


def test_a_window_fills_its_time_and_repeats_the_trace() -> None:
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
        ("arrival_s,prompt_tokens,output_tokens\nnan,1,1\n", "line 2: expected"),
        ("arrival_s,prompt_tokens,output_tokens\n0,inf,1\n", "line 2: expected"),
        ("arrival_s,prompt_tokens,output_tokens\n1,1,1\n\n0,1,1\n", "line 4: arrives before"),
        ("arrival_s,prompt_tokens,output_tokens\n", "no requests"),
        (f"arrival_s,prompt_tokens,output_tokens\n0,1,{'1' * 200_000}\n", "line 2: field larger"),
    ],
)
def test_an_error_names_the_bad_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=expected):
        load_trace(path)


def test_an_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"absent\.csv"):
        load_trace(tmp_path / "absent.csv")


def test_an_error_names_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TraceError, match=r"trace\.csv"):
        load_trace(path)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_above_zero(rate: float) -> None:
    with pytest.raises(ValueError, match="requests_per_s"):
        scale_rate(load_trace()[:5], rate)
