"""Decisions that nobody carries out follow the rules of those that are, and leave no trace."""

import asyncio
from typing import Any

import pytest

from epp.live.trial import Asked, WhatIf, ask, decide_again
from epp.request.decisions import Record, explain
from epp.request.director import Director
from epp.scheduling.scheduler import Refusal
from tests.epp.parts import CHAT, FixedPredictions, Gateway, build_director

# The first endpoint is too slow for tight objectives.
SLOW_AND_FAST = FixedPredictions([(900.0, 90.0), (100.0, 10.0)])
OBJECTIVES = {"x_slo_ttft_ms": "300", "x_slo_tpot_ms": "30", "x_prediction_based_scheduling": "true"}


def make_director(**settings: Any) -> Director:
    director = build_director(latency=SLOW_AND_FAST, **settings)
    # The profile default prefers the empty queue, which is that of the slow endpoint.
    director.books.pool.record_metrics(1, 50, 50, 0.5)
    return director


async def past(director: Director, **headers: str) -> Record:
    gateway = Gateway(director)
    await gateway.request_headers(**(OBJECTIVES | headers))
    await gateway.request_body(CHAT)
    await gateway.response_headers()
    (record,) = director.books.decisions.newest(1)
    return record


def chosen(found: Record | Refusal) -> str:
    assert isinstance(found, Record)
    return found.decision.endpoints[0].name


async def test_the_same_question_about_a_past_request_has_the_same_answer() -> None:
    director = make_director()
    record = await past(director)
    again = decide_again(director.scheduler, record, WhatIf(record.decision.request.id))
    assert isinstance(again, Record)
    told, was = explain(again), explain(record)
    for unlike in ("decided_at", "decision_ms", "outcome"):
        told.pop(unlike), was.pop(unlike)
    assert told == was


async def test_other_conditions_change_the_choice() -> None:
    director = make_director()
    record = await past(director)
    fast, slow = (endpoint.name for endpoint in reversed(record.decision.candidates.endpoints))
    assert chosen(record) == fast
    without = decide_again(director.scheduler, record, WhatIf(record.decision.request.id, by_prediction=False))
    assert chosen(without) == slow
    assert isinstance(without, Record)
    assert without.decision.profile == "default"


async def test_a_weight_of_a_scorer_that_no_profile_has_is_refused_by_name() -> None:
    director = make_director()
    record = await past(director)
    with pytest.raises(ValueError, match=r"no scorer is called 'nobody'; there are .*queue-scorer"):
        decide_again(director.scheduler, record, WhatIf(record.decision.request.id, weights={"nobody": 1.0}))


async def test_a_made_up_request_is_predicted_decided_and_forgotten() -> None:
    director = make_director()
    before = director.books.pool.own_requests.in_flight
    found = await ask(director, Asked(1000, slo_ttft_ms=300.0, slo_tpot_ms=30.0))
    assert isinstance(found, Record)
    told = explain(found)
    assert [one["predicted"]["ttft_ms"] for one in told["candidates"]] == [900.0, 100.0]
    assert told["endpoint"] == told["candidates"][1]["endpoint"]
    assert {"gained", "lost", "total"} <= told["candidates"][0]["worth"].keys()
    assert director.books.pool.own_requests.in_flight == before
    assert list(director.books.decisions.newest(10)) == []


async def test_without_predictions_a_made_up_request_is_placed_as_a_real_one_would_be() -> None:
    director = make_director()
    director.latency = None
    found = await ask(director, Asked(1000))
    assert isinstance(found, Record)
    assert (found.decision.profile, found.source) == ("default", "fallback")


async def test_a_prompt_is_cached_where_it_is_said_to_be() -> None:
    director = make_director()
    name = director.books.pool.everyone().endpoints[1].name
    found = await ask(director, Asked(1000, cached=0.5, cached_on=name))
    assert isinstance(found, Record)
    assert found.decision.candidates.prefix_score.tolist() == [0.0, 0.5]
    with pytest.raises(ValueError, match=r"cached_on: no endpoint .* 'nobody'"):
        await ask(director, Asked(1000, cached=0.5, cached_on="nobody"))


def test_a_question_is_never_answered_by_a_plugins_memory() -> None:
    """A scorer that remembers its choices learns of real ones only."""
    config = """
        apiVersion: inference.networking.x-k8s.io/v1alpha1
        kind: EndpointPickerConfig
        plugins: [{type: no-hit-lru-scorer}]
        schedulingProfiles: [{name: default, plugins: [{pluginRef: no-hit-lru-scorer}]}]
    """
    director = build_director(config=config)
    (scorer,) = director.scheduler.plugins.values()

    async def ask_and_send() -> None:
        await ask(director, Asked(1000))
        before = repr(scorer.__dict__)
        assert isinstance(await ask(director, Asked(1000)), Record)
        assert repr(scorer.__dict__) == before
        await past(director, x_prediction_based_scheduling="false")
        assert repr(scorer.__dict__) != before

    asyncio.run(ask_and_send())
