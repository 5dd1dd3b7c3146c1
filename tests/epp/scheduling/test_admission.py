import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.plugins.admission import ProbabilisticAdmitter, UtilizationDetector
from epp.scheduling.plugins.latency import LatencySloAdmitter
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Decision, Refusal
from epp.scheduling.snapshot import Snapshot
from tests.epp.scheduling.snapshots import build_snapshot

HEAD = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
RNG = np.random.default_rng(1)
SHEDDABLE = Request("1", "m", slo_ttft_ms=500, slo_tpot_ms=50, priority=-1)


def outcome(candidates: Snapshot, request: Request = SHEDDABLE, text: str = DEFAULT_CONFIG) -> Decision | Refusal:
    return load_scheduler(text, {}).schedule(request, candidates, RNG)


SATURATED = {
    "queues": build_snapshot(2, waiting=[6, 7]),
    "caches": build_snapshot(2, kv_usage=[0.81, 0.9]),
    "one of each": build_snapshot(2, waiting=[6, 0], kv_usage=[0.1, 0.9]),
    "old metrics": build_snapshot(2, metrics_age_s=[0.3, math.inf], in_flight=[1, 1]),
    "stale metrics": replace(build_snapshot(2, metrics_age_s=[3, math.inf]), stale=np.ones(2, dtype=bool)),
}


@pytest.mark.parametrize("candidates", SATURATED.values(), ids=SATURATED.keys())
def test_a_sheddable_request_is_shed_when_the_pool_is_saturated(candidates: Snapshot) -> None:
    shed = outcome(candidates)
    assert isinstance(shed, Refusal)
    assert (shed.kind, shed.message, shed.retry_after_s) == (
        "shed",
        "system saturated, sheddable request dropped",
        1,
    )


@pytest.mark.parametrize("candidates", SATURATED.values(), ids=SATURATED.keys())
@pytest.mark.parametrize("priority", [0, 1])
def test_no_other_request_is_shed(candidates: Snapshot, priority: int) -> None:
    assert isinstance(outcome(candidates, replace(SHEDDABLE, priority=priority)), Decision)


def test_one_endpoint_with_room_is_enough() -> None:
    assert isinstance(outcome(build_snapshot(2, waiting=[9, 5], kv_usage=[0.99, 0.8])), Decision)


def test_older_metrics_count_without_traffic_until_they_are_stale() -> None:
    assert isinstance(outcome(build_snapshot(2, metrics_age_s=[1, 1])), Decision)
    assert isinstance(outcome(build_snapshot(2, metrics_age_s=[1, 1], in_flight=[1, 0])), Decision)
    assert isinstance(outcome(build_snapshot(2, metrics_age_s=[1, 1], waiting=[9, 9])), Refusal)


def test_the_environment_sets_the_thresholds() -> None:
    candidates = build_snapshot(2, waiting=[6, 7], metrics_age_s=[1, 1], in_flight=[1, 1])
    environ = {"SD_QUEUE_DEPTH_THRESHOLD": "6", "SD_METRICS_STALENESS_THRESHOLD": "1m30s"}
    assert isinstance(load_scheduler(DEFAULT_CONFIG, environ).schedule(SHEDDABLE, candidates, RNG), Decision)


BUSY_AND_LATE = build_snapshot(2, in_flight=[1, 2], kv_usage=[0.5, 0.5], predicted=[(600, 20), (100, 60)])


def test_a_sheddable_request_is_shed_when_every_endpoint_is_busy_and_late() -> None:
    shed = outcome(BUSY_AND_LATE)
    assert isinstance(shed, Refusal)
    assert shed.message == "no endpoint can meet the objectives, sheddable request dropped"


@pytest.mark.parametrize(
    ("candidates", "request_"),
    [
        (BUSY_AND_LATE, replace(SHEDDABLE, priority=0)),
        (BUSY_AND_LATE, replace(SHEDDABLE, slo_tpot_ms=None)),
        (BUSY_AND_LATE, replace(SHEDDABLE, slo_ttft_ms=None, slo_tpot_ms=None)),
        (build_snapshot(2, in_flight=[1, 0], predicted=[(600, 20), (100, 60)]), SHEDDABLE),
        (build_snapshot(2, in_flight=[1, 2], predicted=[(600, 20), (np.nan, np.nan)]), SHEDDABLE),
        (build_snapshot(2, in_flight=[1, 2], predicted=[(np.nan, np.nan)] * 2), SHEDDABLE),
        (build_snapshot(2, in_flight=[1, 2]), SHEDDABLE),
    ],
    ids=["priority 0", "TTFT met", "no objectives", "one idle", "one not predicted", "none predicted", "no answer"],
)
def test_otherwise_a_sheddable_request_is_served(candidates: Snapshot, request_: Request) -> None:
    assert isinstance(outcome(candidates, request_), Decision)


SHEDDING = DEFAULT_CONFIG.replace("- type: slo-scorer\n", "- type: slo-scorer\n  parameters: {shed: all}\n", 1)


def beside(slo_tpot_ms: float, prefix_score: list[float] | None = None) -> Snapshot:
    """Two endpoints that are predicted to meet what SHEDDABLE asks, each with thirty requests in flight."""
    return build_snapshot(
        2,
        in_flight=[30, 30],
        tpot_slos=[{slo_tpot_ms: 30}, {slo_tpot_ms: 30}],
        predicted=[(300, 26), (300, 26)],
        medians=[(200, 20), (200, 20)],
        unloaded_tpot_ms=[8, 8],
        prefill_ms_per_token=[0.2, 0.2],
        prefix_score=prefix_score,
    )


LONG = replace(SHEDDABLE, input_tokens=8000)


@pytest.mark.parametrize(
    ("candidates", "asked", "text"),
    [
        (beside(21), LONG, DEFAULT_CONFIG),
        (beside(21), LONG, SHEDDING),
        (beside(21), replace(LONG, priority=0), SHEDDING),
        (beside(21), replace(LONG, slo_ttft_ms=None, slo_tpot_ms=None), SHEDDING),
    ],
    ids=["sheddable", "sheddable, all", "all", "all, no objectives"],
)
def test_a_request_that_costs_more_than_it_gains_is_shed(candidates: Snapshot, asked: Request, text: str) -> None:
    shed = outcome(candidates, asked, text)
    assert isinstance(shed, Refusal)
    assert (shed.kind, shed.message, shed.retry_after_s) == (
        "shed",
        "more requests would miss their objectives than meet them, request dropped",
        1,
    )


@pytest.mark.parametrize(
    ("candidates", "asked", "text"),
    [
        (beside(21), replace(LONG, priority=0), DEFAULT_CONFIG),
        (beside(200), LONG, SHEDDING),
        (beside(27), replace(LONG, input_tokens=10), SHEDDING),
        (beside(27, prefix_score=[0, 1]), LONG, SHEDDING),
        (beside(1), LONG, SHEDDING),
        (build_snapshot(2, in_flight=[30, 30]), replace(LONG, priority=0), SHEDDING),
        (build_snapshot(2, predicted=[(600, 20), (100, 60)]), replace(LONG, slo_ttft_ms=1, priority=0), SHEDDING),
        (
            replace(beside(21), predictions=build_snapshot(2, predicted=[(300, 26), (np.nan, 26)]).predictions),
            LONG,
            SHEDDING,
        ),
    ],
    ids=[
        "priority 0",
        "room",
        "short",
        "cached",
        "late already",
        "no predictions",
        "idle, hopeless",
        "one not predicted",
    ],
)
def test_a_request_of_little_or_unknown_cost_is_served(candidates: Snapshot, asked: Request, text: str) -> None:
    assert isinstance(outcome(candidates, asked, text), Decision)


def test_the_environment_can_set_shed_to_all() -> None:
    scheduler = load_scheduler(DEFAULT_CONFIG, {"SLO_SHED": "all"})
    assert isinstance(scheduler.schedule(replace(LONG, priority=0), beside(21), RNG), Refusal)


def test_the_latency_admitter_admits_when_an_endpoint_is_cold() -> None:
    admitter = LatencySloAdmitter()
    assert admitter.admit(SHEDDABLE, BUSY_AND_LATE, RNG) is not None
    cold = build_snapshot(2, in_flight=[1, 2], kv_usage=[0.5, 0.01], predicted=[(600, 20), (100, 60)])
    assert admitter.admit(SHEDDABLE, cold, RNG) is None


@given(
    columns=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1)), min_size=1, max_size=8),
    power=st.floats(0.1, 300),
    k=st.floats(0.001, 1e6),
)
def test_the_probability_of_shedding_is_k_times_a_power_of_saturation(
    columns: list[tuple[float, float]], power: float, k: float
) -> None:
    waiting, kv_usage = (list(column) for column in zip(*columns, strict=True))
    candidates = build_snapshot(len(columns), waiting=waiting, kv_usage=kv_usage)
    saturation = sum(max(queue / 5, kv / 0.8) for queue, kv in columns) / len(columns)
    try:
        expected = min(k * saturation**power, 1.0)
    except OverflowError:
        expected = 1.0
    assert ProbabilisticAdmitter(power=power, k=k).probability(candidates) == pytest.approx(expected, rel=1e-6)


def test_the_probabilistic_admitter_sheds_only_sheddable_requests_at_random() -> None:
    candidates, rng = build_snapshot(1, waiting=[5 * (0.5 / 300) ** 0.2]), np.random.default_rng(4)
    admitter = ProbabilisticAdmitter()
    shed = [admitter.admit(SHEDDABLE, candidates, rng) is not None for _ in range(400)]
    assert 150 < sum(shed) < 250
    assert not any(admitter.admit(replace(SHEDDABLE, priority=0), candidates, rng) for _ in range(50))


def test_the_detector_is_a_filter_too() -> None:
    detector = UtilizationDetector(headroom=0.2)
    candidates = build_snapshot(
        4, waiting=[5, 6, 0, 0], kv_usage=[0.9, 0.1, 0.97, 0.1], metrics_age_s=[0, 0, 0, 9], in_flight=[1, 1, 1, 1]
    )
    assert detector.keep(SHEDDABLE, candidates, RNG).tolist() == [True, False, False, False]
    assert detector.keep(SHEDDABLE, build_snapshot(2, waiting=[9, 9]), RNG).all()


def test_without_candidates_there_is_no_endpoint() -> None:
    nobody = outcome(build_snapshot(0))
    assert isinstance(nobody, Refusal)
    assert (nobody.kind, nobody.retry_after_s) == ("no-endpoint", None)


def test_filters_that_leave_no_endpoint_name_their_profile() -> None:
    text = HEAD + "plugins:\n- type: prefill-filter\n"
    nobody = outcome(build_snapshot(2), text=text)
    assert nobody == Refusal("no-endpoint", "no endpoint passes the filters of profile default")
