import msgspec
import pytest

from lab.evaluation.policies.heuristics import HEURISTICS
from lab.evaluation.policies.picker import Predicted
from lab.evaluation.replay.point import PointResult
from lab.evaluation.replay.replay import Run, replay
from simulator.arrival import Arrival, Change, Scenario
from simulator.cluster import Flight, Placement
from simulator.hardware import hardware

H100 = hardware("h100-llama-3.1-8b")


class FixedPolicy:
    """A policy that places in turn, sheds the requests in `shed`, and predicts 100 ms for everything."""

    def __init__(self, shed: frozenset[int] = frozenset()) -> None:
        self.shed = shed
        self.predicted: dict[int, Predicted] = {}

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        if arrival.index in self.shed:
            return None
        self.predicted[arrival.index] = Predicted(100.0, 100.0, 100.0, 100.0)
        return Placement(arrival.index % 2)

    def first_token(self, flight: Flight, now_s: float) -> None: ...

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...

    def ended(self, flight: Flight, now_s: float) -> None: ...


def scenario(count: int = 40, changes: tuple[Change, ...] = ()) -> Scenario:
    """Return a request per second, of classes in turn. Each is alone: TTFT is some 20 ms and TPOT 9 ms on an H100."""
    objectives = (("easy", 1000.0, 100.0), ("impossible", 1.0, 1.0), ("easy", 1000.0, 100.0))
    arrivals = (Arrival(i, float(i), 800, 20, (), *objectives[i % 3]) for i in range(count))
    return Scenario("made", tuple(arrivals), (H100, H100), 16, changes)


def result(scenario: Scenario, shed: frozenset[int] = frozenset()) -> PointResult:
    policy = FixedPolicy(shed)
    return replay(scenario, Run(policy, None, policy.predicted), "fixed", 1.0, 1)


def test_classes_and_shed_requests_are_judged_after_the_warm_up() -> None:
    found = result(scenario(), shed=frozenset({0, 3, 30, 31}))
    assert (found.requests, found.shed) == (32, 2)  # those that arrive from second 8 to 39
    assert found.attainment_by_class == {"easy": 21 / 22, "impossible": 0.0}
    assert found.attainment == 21 / 32


def test_all_numbers_are_finite() -> None:
    """JSON has only finite numbers: others would come back as None."""
    for shed in (frozenset[int](), frozenset(range(40))):
        found = result(scenario(), shed)
        assert msgspec.json.decode(msgspec.json.encode(found), type=PointResult) == found


def test_a_run_without_judged_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="made at 1 requests/s: none of 1 requests came after the warm-up"):
        result(scenario(1))


def test_errors_over_time_are_those_of_the_changed_endpoint() -> None:
    """The predicted TPOT is 100 ms. The observed one is 9 ms, and 18 ms on the slow endpoint after the change."""
    changed = result(scenario(50, (Change(20.05, 1, 2.0),))).errors_over_time
    errors = {at_s: tpot for at_s, _, tpot, _ in changed}
    assert list(errors) == [0.0, 10.0, 20.0, 30.0]
    usual, slow = errors[0.0], errors[30.0]
    assert (errors[10.0], errors[20.0]) == pytest.approx((usual, slow))
    # The errors are 100 / 9 - 1 and 100 / 18 - 1.
    assert usual == pytest.approx(2 * slow + 100, rel=0.01)
    assert result(scenario()).errors_over_time[-1][2] == pytest.approx(usual)


def test_requests_in_progress_at_a_change_do_not_count() -> None:
    """The second endpoint has the requests 21, 23 and so on. A change in the middle of each leaves none in that bin."""
    changes = tuple(Change(second + 0.05, 1, 1.5) for second in range(20, 30))
    assert [at_s for at_s, *_ in result(scenario(50, changes)).errors_over_time] == [0.0, 10.0, 30.0]


def test_answers_that_end_after_the_last_arrival_have_no_errors() -> None:
    policy = FixedPolicy()
    last = {39: Predicted(100.0, 100.0, 100.0, 100.0)}
    found = replay(scenario(), Run(policy, None, last), "fixed", 1.0, 1)
    assert (found.ttft_mdape, found.errors_over_time) == (None, [])
    before = replay(scenario(), Run(policy, None, {38: last[39]}), "fixed", 1.0, 1)
    # The last bin is dropped, because traffic ends in it.
    assert (before.ttft_mdape is not None, before.errors_over_time) == (True, [])


def test_a_policy_without_predictions_has_no_errors() -> None:
    found = replay(scenario(), Run(HEURISTICS["p2c"](2, 1), None, {}), "p2c", 1.0, 1)
    assert (found.ttft_mdape, found.coverage_q90, found.errors_over_time) == (None, None, [])
