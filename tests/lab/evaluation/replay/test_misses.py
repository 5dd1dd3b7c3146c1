from hypothesis import given
from hypothesis import strategies as st

from lab.evaluation.replay.misses import LEAST_ATTAINMENT
from lab.evaluation.replay.point import PointResult
from lab.evaluation.replay.replay import Run, replay
from simulator.arrival import Arrival, Scenario
from simulator.hardware import hardware
from tests.lab.evaluation.replay.test_judging import FixedPolicy

H100 = hardware("h100-llama-3.1-8b")


def made(arrivals: list[Arrival], shed: frozenset[int] = frozenset(), *, until_decided: bool) -> PointResult:
    policy = FixedPolicy(shed)
    scenario = Scenario("made", tuple(arrivals), (H100, H100), 16)
    return replay(scenario, Run(policy, None, {}), "fixed", 1.0, 1, until_decided=until_decided)


objectives = st.tuples(st.floats(1, 2000), st.floats(2, 40))
requests = st.lists(st.tuples(st.floats(0.001, 0.2), st.integers(1, 4000), st.integers(1, 60), objectives), min_size=3)


@given(requests, st.frozensets(st.integers(0, 20)))
def test_a_run_is_cut_only_if_its_attainment_would_be_too_low(
    asked: list[tuple[float, int, int, tuple[float, float]]], shed: frozenset[int]
) -> None:
    at_s, arrivals = 0.0, []
    for index, (gap_s, prompt, output, (ttft_ms, tpot_ms)) in enumerate(asked):
        at_s += gap_s
        arrivals.append(Arrival(index, at_s, prompt, output, (), "made", ttft_ms, tpot_ms))
    whole, cut = (made(arrivals, shed, until_decided=until_decided) for until_decided in (False, True))
    assert not whole.is_cut
    assert cut.is_cut == (whole.attainment < LEAST_ATTAINMENT)
    assert cut.requests == whole.requests
    if cut.is_cut:
        assert whole.attainment <= cut.attainment < LEAST_ATTAINMENT


def test_a_waiting_request_misses_before_its_first_token() -> None:
    """A prompt of 100,000 tokens takes over 3 s. The requests behind it have an objective of 100 ms and no token."""
    long = Arrival(0, 0.0, 100_000, 2, (), "long", 1e6, 1e6)
    behind = [Arrival(index, 0.01 * index, 100, 2, (), "behind", 100.0, 100.0) for index in range(2, 60, 2)]
    last = Arrival(60, 1.0, 100, 2, (), "behind", 100.0, 100.0)
    found = made([long, *behind, last], until_decided=True)
    assert found.is_cut
    assert found.ttft_ms["p50"] == 0.0  # no request has ended
