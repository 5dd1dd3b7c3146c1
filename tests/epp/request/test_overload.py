"""An overloaded picker makes cheaper picks, and goes back when requests wait no more."""

import json
import logging
from collections import Counter
from typing import Any

import pytest

from epp.extproc.rpc import RpcError
from epp.pool.pool import Pool
from epp.prediction.features import FeatureColumns
from epp.request.decisions import explain
from epp.request.director import Director
from epp.request.overload import Level, Overload
from epp.request.overload_by_client import OverloadByClient
from epp.request.parsed import ParsedRequest, RequestReader
from epp.request.routed import RoutedRequest
from epp.scheduling.snapshot import Endpoint, Predictions, Snapshot
from tests.epp.clock import Clock
from tests.epp.parts import FixedPredictions, Gateway, build_director, queued_rows

SLO = {":path": "/v1/completions", "x-prediction-based-scheduling": "true"}
BODY = json.dumps({"model": "m", "prompt": "hello " * 40}).encode()
LIMIT_S = 0.05


class CountedPredictions(FixedPredictions):
    asked = 0

    def predict(self, columns: FeatureColumns) -> Predictions:
        self.asked += 1
        return super().predict(columns)


def burst(overload: Overload, clock: Clock, waits_s: list[float], step_s: float = 0.01) -> list[Level]:
    levels = []
    for waited_s in waits_s:
        levels.append(overload.pick(waited_s))
        clock.now_s += step_s
    return levels


class Connection:
    """Stands for a client."""


CONNECTION = Connection()


def test_picks_degrade_in_two_steps_while_all_requests_wait(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    everyone = OverloadByClient(LIMIT_S, clock)
    overload = everyone.of(CONNECTION, "192.0.2.1:5")
    levels = burst(overload, clock, [0.06] * 20)
    assert levels == [Level.NORMAL] * 5 + [Level.DEFAULT] * 5 + [Level.RANDOM] * 10
    assert everyone.picks == {Level.NORMAL: 5, Level.DEFAULT: 5, Level.RANDOM: 10}
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_one_slow_request_among_prompt_ones_changes_nothing() -> None:
    clock = Clock()
    overload = Overload(LIMIT_S, clock)
    assert set(burst(overload, clock, [0.06, 0.06, 0.06, 0.0] * 50)) == {Level.NORMAL}


def test_picks_are_never_degraded_unless_a_limit_is_set() -> None:
    clock = Clock()
    assert set(burst(Overload(clock=clock), clock, [60.0] * 50)) == {Level.NORMAL}


def test_picks_get_better_step_by_step_when_no_request_waits(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    overload = OverloadByClient(LIMIT_S, clock).of(CONNECTION, "192.0.2.1:5")
    burst(overload, clock, [0.06] * 20)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        levels = burst(overload, clock, [0.0] * 220)
    assert sorted(Counter(levels).items()) == [(Level.NORMAL, 21), (Level.DEFAULT, 100), (Level.RANDOM, 99)]
    assert len(caplog.records) == 2


def test_the_level_gets_better_without_requests() -> None:
    clock = Clock()
    overload = Overload(LIMIT_S, clock)
    burst(overload, clock, [0.06] * 20)
    clock.now_s += 2.5
    assert overload.level == Level.NORMAL


def test_each_relapse_doubles_the_time_to_the_next_return() -> None:
    clock = Clock()
    overload = Overload(LIMIT_S, clock)
    returns_s = []
    for _ in range(7):
        burst(overload, clock, [0.06] * 8)
        began_s = clock.now_s
        while overload.pick(0.0):
            clock.now_s += 0.01
        returns_s.append(round(clock.now_s - began_s))
    assert returns_s == [1, 2, 4, 8, 16, 16, 16]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def route(director: Director, overload: Overload, waited_s: float) -> RoutedRequest:
    parsed = RequestReader(director.books.tokens).read(SLO, BODY, director.scheduler.prefix)
    assert isinstance(parsed, ParsedRequest)
    routed = director.route(parsed, None, 0.0, overload.pick(waited_s))
    assert isinstance(routed, RoutedRequest)
    routed.record_decision()
    return routed


def test_a_burst_is_picked_without_predictions_then_at_random(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    latency = CountedPredictions([(10.0, 1.0)] * 4)
    director = build_director(endpoints=4, latency=latency)
    overload, director.clock = Overload(LIMIT_S, clock), clock
    pool = director.books.pool
    pool.record_metrics(0, 1000, 1000, 1)
    snapshots, take = [], pool.snapshot

    def counted(*about: Any) -> Snapshot:
        snapshots.append(about)
        return take(*about)

    monkeypatch.setattr(Pool, "snapshot", lambda pool, *about: counted(*about))
    routed = []
    for index in range(400):
        routed.append(route(director, overload, 0.06))
        clock.now_s += 0.01 if index < 10 else 0.0001
    assert latency.asked == 5
    assert [one.record.decision.profile for one in routed] == ["slo"] * 5 + ["default"] * 395
    assert len(snapshots) == 11
    chosen = Counter(one.flight.slot for one in routed[10:])
    assert set(chosen) == {0, 1, 2, 3}
    assert min(chosen.values()) > 50
    first, last = explain(routed[0].record), explain(routed[-1].record)
    assert (first["overload"], first["prediction_error"]) == ("normal", None)
    assert (last["overload"], last["prediction_error"]) == ("random", "the picker is overloaded")


def test_requests_picked_under_overload_are_neither_observed_nor_learnt_from(clock: Clock) -> None:
    director = build_director(latency=FixedPredictions([(10.0, 1.0)] * 2))
    overload = Overload(LIMIT_S, clock)
    observed = []
    for _ in range(12):
        routed = route(director, overload, 0.06)
        observed.append(routed.response_started(200, is_stream=True, now_s=clock.now_s))
        routed.tokens_came(1, clock.now_s + 1)
        routed.ended(clock.now_s + 2)
        clock.now_s += 0.01
    assert observed == [True] * 5 + [False] * 7
    assert len(queued_rows(director)) == 5
    assert director.books.pool.own_requests.in_flight == 0


def test_random_picks_keep_to_the_filters(clock: Clock) -> None:
    config = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: label-selector-filter, parameters: {matchLabels: {role: serve}}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: label-selector-filter}]}
"""
    director = build_director(config=config)
    overload, director.clock = Overload(LIMIT_S, clock), clock
    director.books.pool.replace_endpoints(
        Endpoint(f"pod-{n}", f"10.0.0.{n}:8000", {"role": "serve" if n % 2 else "train"}) for n in range(6)
    )
    for slot in director.books.pool.endpoints:
        director.books.pool.record_metrics(slot, 0, 0, 0)
    for _ in range(12):
        route(director, overload, 0.06)
        clock.now_s += 0.01
    picked = [route(director, overload, 0.06).record for _ in range(100)]
    assert {record.level for record in picked} == {Level.RANDOM}
    assert {record.decision.endpoints[0].name for record in picked} == {"pod-1", "pod-3", "pod-5"}


def test_requests_too_late_for_the_gateway_are_given_up_once_picks_are_random(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    everyone = OverloadByClient(LIMIT_S, clock)
    overload = everyone.of(CONNECTION, "192.0.2.1:5")
    assert not overload.gives_up(1.0)
    burst(overload, clock, [0.06] * 12)
    caplog.clear()
    assert [overload.gives_up(waited_s) for waited_s in (0.0, 0.14, 0.16, 0.16)] == [False, False, True, True]
    assert everyone.of(CONNECTION, "192.0.2.1:5") is overload
    assert (everyone.given_up, len(caplog.records)) == (2, 1)
    assert [overload.gives_up(waited_s, holds_body=True) for waited_s in (1.9, 2.1)] == [False, True]


@pytest.mark.parametrize(("full_duplex", "too_late_s"), [(False, 0.2), (True, 2.1)])
async def test_a_late_request_goes_back_to_the_gateway_but_not_a_late_answer(
    full_duplex: bool, too_late_s: float, clock: Clock
) -> None:
    director = build_director()
    everyone = OverloadByClient(LIMIT_S, clock)
    overload = everyone.of(CONNECTION, "192.0.2.1:5")
    burst(overload, clock, [0.06] * 12)
    gateway = Gateway(director, full_duplex=full_duplex, overload=overload)
    gateway.waited_s = too_late_s - 0.1
    await gateway.request_headers()
    await gateway.request_body(BODY)
    gateway.waited_s = too_late_s
    await gateway.response_headers()
    late = Gateway(director, full_duplex=full_duplex, overload=overload)
    await late.request_headers()
    late.waited_s = too_late_s
    with pytest.raises(RpcError):
        await late.request_body(BODY)
    with pytest.raises(RpcError):
        await late.request_headers()
    late.exchange.close()
    assert (everyone.given_up, director.books.pool.own_requests.in_flight) == (2, 1)
