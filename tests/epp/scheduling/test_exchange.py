"""Scheduling decisions as the gateway sees them."""

from collections.abc import Mapping

import pytest

from epp.extproc.protocol.external_processor_pb2 import ProcessingResponse
from epp.request.decisions import explain
from epp.request.director import Director
from epp.scheduling.configuration.config import DEFAULT_CONFIG
from tests.epp.parts import CHAT, FixedPredictions, Gateway, build_director, set_headers
from tests.epp.scheduling.configuration.test_config import HEAD, LLM_D

SHEDDABLE = {"x_gateway_inference_objective": "batch-sheddable"}


async def ask(gateway: Gateway, headers: Mapping[str, str]) -> ProcessingResponse:
    await gateway.request_headers(**headers)
    (answer, *_) = await gateway.request_body(CHAT)
    return answer


def saturate(director: Director, waiting: float) -> None:
    for slot in director.books.pool.endpoints:
        director.books.pool.record_metrics(slot, waiting, 0, 0)


async def test_a_saturated_pool_sheds_sheddable_requests() -> None:
    director = build_director()
    saturate(director, 6)
    shed = (await ask(Gateway(director), SHEDDABLE)).immediate_response
    assert shed.status.code == 429
    assert (
        shed.body == b"inference gateway: InferencePoolResourceExhausted - system saturated, sheddable request dropped"
    )
    headers = {o.header.key: o.header.raw_value for o in shed.headers.set_headers}
    assert headers["retry-after"] == b"1"
    assert headers["x-llm-d-request-dropped-reason"] == b"rejected-saturated"
    page = director.metrics.page()
    assert b'headroom_epp_shed_requests_total{plugin="utilization-detector"} 1.0' in page
    assert b'headroom_epp_refused_requests_total{code="InferencePoolResourceExhausted"} 1.0' in page
    assert set_headers(await ask(Gateway(director), {}))["x-gateway-destination-endpoint"]


async def test_a_pool_with_room_sheds_nothing() -> None:
    director = build_director()
    saturate(director, 5)
    assert set_headers(await ask(Gateway(director), SHEDDABLE))["x-gateway-destination-endpoint"]


@pytest.mark.parametrize(("predicted_ttft_ms", "is_shed"), [(900.0, True), (100.0, False)])
async def test_a_request_that_no_endpoint_can_serve_in_time_is_shed(predicted_ttft_ms: float, is_shed: bool) -> None:
    director = build_director(endpoints=1, latency=FixedPredictions([(predicted_ttft_ms, 10.0)]))
    asked = {"x_prediction_based_scheduling": "true", "x_slo_ttft_ms": "500"}
    busy = Gateway(director)
    await ask(busy, asked)
    assert (await ask(Gateway(director), asked | SHEDDABLE)).HasField("immediate_response") == is_shed


async def test_the_preset_serves_every_request_by_predictions() -> None:
    text = LLM_D + (
        "plugins:\n- type: predicted-latency-producer\n- type: slo-headroom-tier-filter\n"
        "  parameters: {epsilonExploreNeg: 0}\n- type: latency-scorer\n- type: weighted-random-picker\n"
    )
    director = build_director(config=text, latency=FixedPredictions([(900.0, 10.0), (100.0, 10.0)]))
    for _ in range(5):
        answer = await ask(Gateway(director), {"x_llm_d_slo_ttft_ms": "500"})
        assert set_headers(answer)["x-gateway-destination-endpoint"] == "10.0.0.1:8000"


async def test_the_explanation_has_the_headroom_of_the_decision() -> None:
    director = build_director(endpoints=1, latency=FixedPredictions([(100.0, 30.0)]))
    asked = {"x_prediction_based_scheduling": "true", "x_slo_ttft_ms": "500"}
    await ask(Gateway(director), asked)
    strict = Gateway(director)
    await ask(strict, {"x_slo_tpot_ms": "50"})
    await ask(Gateway(director), asked)
    after, _, before = (explain(record)["candidates"][0] for record in director.books.decisions.newest(3))
    assert before["headroom"] == {"ttft_ms": 400, "tpot_ms": None}
    assert after["headroom"] == {"ttft_ms": 400, "tpot_ms": 20}


async def test_a_session_comes_back_to_its_endpoint() -> None:
    text = HEAD + "plugins:\n- type: session-affinity-filter\n- type: random-picker\n"
    director = build_director(endpoints=4, config=text)
    gateway = Gateway(director)
    first = set_headers(await ask(gateway, {}))["x-gateway-destination-endpoint"]
    added = (await gateway.response_headers()).response_headers.response.header_mutation.set_headers
    token = {o.header.key: o.header.raw_value.decode() for o in added}["x-session-token"]
    for _ in range(8):
        again = set_headers(await ask(Gateway(director), {"x_session_token": token}))
        assert again["x-gateway-destination-endpoint"] == first


async def test_filters_that_leave_no_endpoint_are_503() -> None:
    text = HEAD + "plugins:\n- type: prefill-filter\n"
    answer = (await ask(Gateway(build_director(config=text)), {})).immediate_response
    assert answer.status.code == 503
    assert b"no endpoint passes the filters of profile default" in answer.body


async def test_with_shed_all_a_request_that_costs_more_than_it_gains_is_shed() -> None:
    shedding = DEFAULT_CONFIG.replace("- type: slo-scorer\n", "- type: slo-scorer\n  parameters: {shed: all}\n", 1)
    director = build_director(endpoints=1, latency=FixedPredictions([(100.0, 10.0)]), config=shedding)
    asked = {"x_prediction_based_scheduling": "true", "x_slo_ttft_ms": "500"}
    for _ in range(3):
        others = await ask(Gateway(director), asked | {"x_slo_tpot_ms": "7.5"})
        assert set_headers(others)["x-gateway-destination-endpoint"]
    # The request can't be in time itself, and slows three others that may be.
    shed = (await ask(Gateway(director), asked | {"x_slo_tpot_ms": "1"})).immediate_response
    assert (shed.status.code, b"more requests would miss their objectives" in shed.body) == (429, True)
    assert b'headroom_epp_shed_requests_total{plugin="slo-scorer"} 1.0' in director.metrics.page()
