from simulator.outcome import Outcome
from simulator.summary import summarise
from simulator.trace import TraceRequest
from simulator.workload import SloClass, plan

REQUEST = plan([TraceRequest(0, 100, 2)], seed=0, classes=[SloClass("only", 1, 100, 0, 50)])[0]
GOOD = Outcome(REQUEST, 0.0, status=200, ttft_ms=100.0, tpot_ms=50.0)
LATE = Outcome(REQUEST, 0.0, status=200, ttft_ms=101.0, tpot_ms=50.0)
SLOW = Outcome(REQUEST, 0.0, status=200, ttft_ms=100.0, tpot_ms=51.0)
FAILED = Outcome(REQUEST, 0.0, status=200, error="the stream ended early", ttft_ms=1.0, tpot_ms=1.0)


def test_an_objective_is_met_by_a_complete_answer_at_or_below_its_value() -> None:
    assert [outcome.met for outcome in (GOOD, LATE, SLOW, FAILED)] == [True, False, False, False]


def test_goodput_counts_requests_that_met_their_objectives_over_the_span() -> None:
    summary = summarise([GOOD, GOOD, LATE, FAILED], span_s=4.0)
    assert (summary["requests"], summary["errors"]) == (4, 1)
    assert (summary["slo_attainment"], summary["goodput_rps"]) == (0.5, 0.5)
    assert summary["ttft_ms"]["p50"] == 100.0


def test_no_outcomes_are_summarised() -> None:
    assert summarise([], 1.0) == {
        "requests": 0,
        "errors": 0,
        "slo_attainment": 0.0,
        "goodput_rps": 0.0,
        "ttft_ms": {},
        "tpot_ms": {},
    }
