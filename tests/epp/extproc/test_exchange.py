"""Test one request's exchange with Envoy, message by message."""

import asyncio
import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.app import describe_endpoints
from epp.extproc.messages import CHUNK_BYTES, SCORES_KEY, BodyMode
from epp.extproc.protocol.external_processor_pb2 import HttpTrailers, ProcessingRequest
from epp.extproc.visibility import Visibility
from epp.pool.pool import Pool
from epp.prediction.features import FeatureColumns
from epp.request.decisions import explain
from epp.request.director import Director
from epp.scheduling.configuration.config import DEFAULT_CONFIG
from epp.scheduling.snapshot import Predictions, Snapshot
from tests.epp.parts import CHAT, FixedPredictions, Gateway, build_director, queued_rows, set_headers
from tests.epp.scheduling.configuration.test_config import HEAD

DESTINATION = "x-gateway-destination-endpoint"
SLO_HEADERS = {"x_slo_ttft_ms": "500", "x_slo_tpot_ms": "50", "x_prediction_based_scheduling": "true"}


async def test_the_answer_to_a_buffered_body_names_the_endpoint() -> None:
    gateway = Gateway(build_director())
    (first,) = await gateway.request_headers()
    assert first.HasField("request_headers")
    assert not set_headers(first)
    (second,) = await gateway.request_body(CHAT)
    assert set_headers(second)[DESTINATION] in ("10.0.0.0:8000", "10.0.0.1:8000")
    assert not second.request_body.response.HasField("body_mutation")
    lb = second.dynamic_metadata.fields["envoy.lb"].struct_value
    assert lb.fields[DESTINATION].string_value == set_headers(second)[DESTINATION]


async def test_a_full_duplex_request_gets_no_answer_until_its_body_ends() -> None:
    gateway = Gateway(build_director(), full_duplex=True)
    body = json.dumps({"model": "m", "prompt": "x" * 150_000}).encode()
    assert await gateway.request_headers() == []
    assert await gateway.request_body(body[:70_000], end_of_stream=False) == []
    headers, *pieces = await gateway.request_body(body[70_000:])
    assert DESTINATION in set_headers(headers)
    streamed = [piece.request_body.response.body_mutation.streamed_response for piece in pieces]
    assert b"".join(piece.body for piece in streamed) == body
    assert max(len(piece.body) for piece in streamed) <= CHUNK_BYTES
    assert [piece.end_of_stream for piece in streamed] == [False] * (len(streamed) - 1) + [True]


async def test_a_body_is_held_until_its_request_is_routed() -> None:
    gateway = Gateway(build_director(), full_duplex=True)
    await gateway.request_headers()
    assert gateway.exchange.held_bytes == 0
    await gateway.request_body(CHAT[:9], end_of_stream=False)
    await gateway.request_body(CHAT[9:20], end_of_stream=False)
    assert gateway.exchange.held_bytes == 20
    await gateway.request_body(CHAT[20:])
    assert gateway.exchange.held_bytes == 0


async def test_a_full_duplex_body_that_ends_in_trailers_is_passed_on_before_them() -> None:
    gateway = Gateway(build_director(), full_duplex=True)
    await gateway.request_headers()
    await gateway.request_body(CHAT, end_of_stream=False)
    headers, body, trailers = await gateway.send(ProcessingRequest(request_trailers=HttpTrailers()))
    assert DESTINATION in set_headers(headers)
    assert not body.request_body.response.body_mutation.streamed_response.end_of_stream
    assert trailers.HasField("request_trailers")


async def test_a_full_duplex_response_is_returned_unchanged() -> None:
    gateway = Gateway(build_director(), full_duplex=True)
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    await gateway.response_headers()
    (answer,) = await gateway.response_body(b"data: x\n\n", end_of_stream=True)
    streamed = answer.response_body.response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"data: x\n\n", True)


async def test_a_request_without_a_body_is_routed_by_its_headers() -> None:
    (answer,) = await Gateway(build_director()).bodiless_request()
    assert DESTINATION in set_headers(answer)


async def test_the_model_is_rewritten_and_the_pickers_headers_are_removed() -> None:
    gateway = Gateway(build_director())
    await gateway.request_headers(x_gateway_model_name_rewrite="other", x_gateway_inference_objective="o")
    (answer,) = await gateway.request_body(CHAT)
    response = answer.request_body.response
    assert json.loads(response.body_mutation.body)["model"] == "other"
    assert set_headers(answer)["content-length"] == str(len(response.body_mutation.body))
    removed = set(response.header_mutation.remove_headers)
    assert removed == {"x-gateway-model-name-rewrite", "x-gateway-inference-objective"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (b"{", {}, 400, "BadRequest - Error unmarshaling request body"),
        (b"[]", {}, 400, "BadRequest - Error unmarshaling request body"),
        (CHAT, {"x_slo_ttft_ms": "Inf"}, 400, "x-slo-ttft-ms"),
    ],
)
async def test_a_bad_request_is_refused_at_once(body: bytes, headers: dict[str, str], status: int, text: str) -> None:
    director = build_director()
    gateway = Gateway(director)
    await gateway.request_headers(**headers)
    (answer,) = await gateway.request_body(body)
    assert answer.immediate_response.status.code == status
    assert text in answer.immediate_response.body.decode()
    assert director.books.pool.own_requests.in_flight == 0


async def test_a_request_without_endpoints_is_answered_with_503() -> None:
    gateway = Gateway(build_director(endpoints=0))
    await gateway.request_headers()
    (answer,) = await gateway.request_body(CHAT)
    assert answer.immediate_response.status.code == 503
    assert answer.immediate_response.body.decode().startswith("inference gateway: ServiceUnavailable - ")


FILTERS = f"{HEAD}plugins:\n- type: prefill-filter\n"


@pytest.mark.parametrize(
    ("parts", "body", "headers", "status", "kind", "reason"),
    [
        ({"endpoints": 0}, CHAT, {}, 503, "ServiceUnavailableError", "rejected-no-endpoints"),
        ({"config": FILTERS}, CHAT, {}, 503, "ServiceUnavailableError", "rejected-saturated"),
        ({}, b"[]", {}, 400, "BadRequestError", None),
        ({}, CHAT, {"x_slo_ttft_ms": "soon"}, 400, "BadRequestError", None),
    ],
)
async def test_refusals_have_the_form_of_openais_errors(
    parts: dict[str, Any], body: bytes, headers: dict[str, str], status: int, kind: str, reason: str | None
) -> None:
    answer = await refusal(build_director(**parts), body, {":path": "/v1/chat/completions?a=b", **headers})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get("x-llm-d-request-dropped-reason") == reason
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["type"], error["param"]) == (status, status, kind, None)
    assert error["message"].startswith("inference gateway: ")


@pytest.mark.parametrize(("path", "is_json"), [("/v1/models", True), ("/generate", False), ("/my/completions", True)])
async def test_refusals_at_other_paths_are_text(path: str, is_json: bool) -> None:
    answer = await refusal(build_director(endpoints=0), CHAT, {":path": path})
    assert (answer.headers["content-type"] == "application/json") == is_json
    assert answer.body.startswith(b"{") == is_json
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


class Refusal(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def refusal(director: Director, body: bytes, headers: dict[str, str]) -> Refusal:
    gateway = Gateway(director)
    await gateway.request_headers(**headers)
    (answer,) = await gateway.request_body(body)
    found = answer.immediate_response
    listed = {option.header.key: option.header.raw_value.decode() for option in found.headers.set_headers}
    return Refusal(found.status.code, listed, found.body)


async def test_a_body_that_is_too_large_is_refused_by_openais_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.extproc.exchange.MAX_BODY_BYTES", 10)
    answer = await refusal(build_director(), CHAT, {":path": "/v1/completions"})
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (413, "PayloadTooLargeError")
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-too-large"


async def test_an_slo_request_goes_to_the_endpoint_with_the_best_prediction() -> None:
    director = build_director(latency=FixedPredictions([(900, 90), (100, 10)]))
    gateway = Gateway(director)
    await gateway.request_headers(**SLO_HEADERS)
    (answer,) = await gateway.request_body(CHAT)
    (record,) = director.books.decisions.newest(1)
    assert record.decision.profile == "slo"
    if set_headers(answer)[DESTINATION] == "10.0.0.0:8000":
        pytest.skip("the one draw in a hundred that explores")
    assert record.prediction_ms > 0
    assert record.predicted == (100, 10)


async def test_an_slo_request_without_predictions_is_decided_by_default() -> None:
    director = build_director(latency=FixedPredictions(None))
    gateway = Gateway(director)
    await gateway.request_headers(**SLO_HEADERS)
    (answer,) = await gateway.request_body(CHAT)
    (record,) = director.books.decisions.newest(1)
    assert DESTINATION in set_headers(answer)
    assert (record.decision.profile, record.prediction_error) == ("default", "nobody answers")


@pytest.mark.parametrize(
    ("response_mode", "per_second", "expected"),
    [
        (BodyMode.NONE, 100, BodyMode.STREAMED),
        (BodyMode.NONE, 0, None),
        (BodyMode.STREAMED, 0, BodyMode.NONE),
        (BodyMode.STREAMED, 100, None),
    ],
)
async def test_the_mode_override_makes_envoy_stream_observed_responses(
    response_mode: "BodyMode", per_second: float, expected: int | None
) -> None:
    gateway = Gateway(build_director(observed_per_second=per_second), response_mode=response_mode)
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    answer = await gateway.response_headers()
    assert answer.HasField("mode_override") == (expected is not None)
    if expected is not None:
        assert answer.mode_override.response_body_mode == expected


@pytest.mark.parametrize(
    "status", ["\u00b2\u00b2\u00b2", "\u0662\u0660\u0660", pytest.param("2" * 5_000, id="long"), "20", "", "-20", "2.0"]
)
async def test_a_status_that_is_no_number_of_three_digits_counts_as_absent(status: str) -> None:
    director = build_director()
    gateway = Gateway(director)
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    assert (await gateway.response_headers(status)).HasField("response_headers")
    (record,) = director.books.decisions.newest(1)
    assert record.outcome.status == 0


async def test_an_observed_response_gives_an_explanation_and_training_rows() -> None:
    director = build_director(latency=FixedPredictions([(100, 10), (100, 10)]))
    gateway = Gateway(director)
    await gateway.request_headers(**SLO_HEADERS, x_request_id="r1")
    await gateway.request_body(CHAT)
    await gateway.response_headers()
    for delta in ({"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}):
        assert np.isnan(director.books.pool.everyone().ms_since_token).all() == (delta["content"] in ("", "a"))
        await gateway.response_body(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n")
    gateway.exchange.close()
    assert np.isnan(director.books.pool.everyone().ms_since_token).all()
    (record,) = director.books.decisions.newest(1)
    explained = explain(record)
    assert explained["request_id"] == "r1"
    assert explained["outcome"]["output_tokens"] == 2
    assert explained["outcome"]["ttft_ms"] > 0
    assert explained["candidates"][0]["headroom"] == {"ttft_ms": 400, "tpot_ms": 40}
    rows = queued_rows(director)
    taught = [(row.num_tokens_generated, row.actual_ttft_ms > 0, row.actual_tpot_ms > 0) for row in rows]
    assert taught == [(0, True, False), (0, False, True), (1, False, True)]
    assert director.books.pool.own_requests.in_flight == 0


async def test_a_slow_step_enters_the_recent_tpot_with_its_whole_stretch() -> None:
    director, now_s = build_director(), 0.0
    director.clock = lambda: now_s
    gateway = Gateway(director)
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    await gateway.response_headers()

    async def tokens(*gaps_ms: float) -> float:
        nonlocal now_s
        for gap_ms in gaps_ms:
            now_s += gap_ms / 1000
            await gateway.response_body(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        # The pool learns of the last token with the next message or when the exchange settles.
        gateway.exchange.settle()
        return float(np.nanmax(director.books.pool.everyone().recent_tpot_ms, initial=0.0))

    assert await tokens(0, 650, *[10] * 30) == 0
    mean_ms = (650 + 31 * 10) / 32
    assert abs(await tokens(10) - mean_ms) < 1e-6
    assert abs(await tokens(10, 10) - mean_ms) < 1e-6
    gateway.exchange.close()
    # The rest of a response counts by its tokens.
    left = float(np.nanmax(director.books.pool.everyone().recent_tpot_ms))
    assert 10 < left < mean_ms


async def test_a_model_servers_error_gives_no_training_rows() -> None:
    director = build_director()
    gateway = Gateway(director)
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    assert not (await gateway.response_headers(500)).HasField("mode_override")
    gateway.exchange.close()
    assert queued_rows(director) == []
    assert b'error_code="500"' in director.metrics.page()


acts = st.sampled_from(["headers", "body", "part", "trailers", "response", "chunk", "junk"])


@given(st.lists(acts, max_size=12), st.booleans())
async def test_no_order_of_messages_leaks_a_request(sequence: list[str], full_duplex: bool) -> None:
    director = build_director()
    gateway = Gateway(director, full_duplex=full_duplex)
    for act in sequence:
        match act:
            case "headers":
                await gateway.request_headers()
            case "body" | "part":
                await gateway.request_body(CHAT, end_of_stream=act == "body")
            case "trailers":
                await gateway.send(ProcessingRequest(request_trailers=HttpTrailers()))
            case "response":
                await gateway.response_headers()
            case "chunk":
                await gateway.response_body(b"data: {}\n\n")
            case "junk":
                await gateway.send(ProcessingRequest())
    gateway.exchange.close()
    assert director.books.pool.own_requests.in_flight == 0


async def test_a_request_on_an_unknown_path_passes_through_at_once() -> None:
    gateway = Gateway(build_director(), full_duplex=True)
    (picked,) = await gateway.request_headers(**{":path": "/v1/audio/transcriptions"})
    assert DESTINATION in set_headers(picked)
    (piece,) = await gateway.request_body(b"\xff not JSON", end_of_stream=False)
    streamed = piece.request_body.response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"\xff not JSON", False)
    (last,) = await gateway.request_body(b"", end_of_stream=True)
    assert last.request_body.response.body_mutation.streamed_response.end_of_stream


async def test_a_body_of_unknown_shape_is_routed_without_a_prompt() -> None:
    director = build_director()
    gateway = Gateway(director)
    await gateway.request_headers()
    (answer,) = await gateway.request_body(b'{"model": "m", "messages": {"new": "shape"}}')
    assert DESTINATION in set_headers(answer)
    (record,) = director.books.decisions.newest(1)
    assert (record.decision.request.model, record.decision.request.input_tokens) == ("m", 0)


async def test_a_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.extproc.exchange.MAX_BODY_BYTES", 1000)
    gateway = Gateway(build_director(), full_duplex=True)
    await gateway.request_headers()
    (answer,) = await gateway.request_body(b" " * 1001, end_of_stream=False)
    assert answer.immediate_response.status.code == 413


async def test_the_endpoint_of_a_list_that_served_is_charged() -> None:
    config = DEFAULT_CONFIG.replace(
        "- type: max-score-picker", "- type: max-score-picker\n  parameters: {maxNumOfEndpoints: 2}"
    )
    director = build_director(config=config)
    gateway = Gateway(director)
    await gateway.request_headers()
    (answer,) = await gateway.request_body(CHAT)
    first, second = set_headers(answer)[DESTINATION].split(",")
    await gateway.response_headers(served=second)
    loads = {e["address"]: e["in_flight"] for e in describe_endpoints(director.books.pool)}
    assert loads == {first: 0, second: 1}
    gateway.exchange.close()
    assert director.books.pool.own_requests.in_flight == 0


@pytest.mark.parametrize(
    ("end", "is_left_out"), [("by the server, early", True), ("by the server", False), ("by anybody", False)]
)
@pytest.mark.parametrize("full_duplex", [False, True])
async def test_only_streams_that_a_server_ends_early_count_against_it(
    end: str, is_left_out: bool, full_duplex: bool
) -> None:
    director = build_director()
    suspect = next(iter(director.books.pool.endpoints.values())).address
    for number in range(40):
        gateway = Gateway(director, full_duplex=full_duplex)
        await gateway.request_headers()
        answer = (await gateway.request_body(b'{"model":"m","prompt":"%d"}' % number))[0]
        is_suspect = set_headers(answer)[DESTINATION] == suspect
        await gateway.response_headers()
        await gateway.response_body(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        if not (is_suspect and end == "by anybody"):
            is_early = is_suspect and end == "by the server, early"
            await gateway.response_body(b"" if is_early else b"data: [DONE]\n\n", end_of_stream=True)
        gateway.exchange.close()
    left_out = [director.books.pool.endpoints[slot].address for slot in director.books.pool.failures.pauses_s()]
    assert left_out == ([suspect] if is_left_out else [])


async def test_response_headers_show_predictions_if_configured() -> None:
    director = build_director(latency=FixedPredictions([(100.5, 10), (100.5, 10)]))
    gateway = Gateway(director, visibility=Visibility(in_headers=True))
    await gateway.request_headers(**SLO_HEADERS)
    await gateway.request_body(CHAT)
    answer = await gateway.response_headers()
    shown = {o.header.key: o.header.raw_value for o in answer.response_headers.response.header_mutation.set_headers}
    assert shown["x-headroom-predicted-ttft-ms"] == b"100.500"
    assert b'ttft;desc="predicted";dur=100.500' in shown["server-timing"]


async def test_the_usage_object_shows_predictions_if_configured() -> None:
    director = build_director(latency=FixedPredictions([(100, 10), (100, 10)]))
    gateway = Gateway(director, full_duplex=True, visibility=Visibility(in_usage=True))
    await gateway.request_headers(**SLO_HEADERS)
    await gateway.request_body(CHAT)
    await gateway.response_headers()
    for content in ("a", "b"):
        await gateway.response_body(f'data: {{"choices":[{{"delta":{{"content":"{content}"}}}}]}}\n\n'.encode())
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    (answer,) = await gateway.response_body(usage, end_of_stream=True)
    body = answer.response_body.response.body_mutation.streamed_response.body
    first, done = body.split(b"\n\n")[:2]
    shown = json.loads(first.removeprefix(b"data: "))["usage"]
    assert (shown["prompt_tokens"], shown["predicted_ttft_ms"], shown["avg_predicted_tpot_ms"]) == (7, 100, 10)
    assert shown["ttft_ms"] > 0
    assert shown["avg_tpot_ms"] > 0
    assert done == b"data: [DONE]"


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_an_unobserved_responses_tokens_come_from_its_usage(content_type: str) -> None:
    director = build_director(observed_per_second=0)
    gateway = Gateway(director, full_duplex=True)
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    await gateway.response_headers(content_type=content_type)
    body = b'{"id":"x","usage":{"prompt_tokens":70,"completion_tokens":25}}'
    chunks = [body[:20], body[20:]] if content_type == "application/json" else [b"data: " + body + b"\n\n", b""]
    await gateway.response_body(chunks[0])
    await gateway.response_body(chunks[1], end_of_stream=True)
    gateway.exchange.close()
    (record,) = director.books.decisions.newest(1)
    assert record.outcome.output_tokens == 25
    assert b'inference_model_output_tokens_sum{model_name="m",target_model_name="m"} 25.0' in director.metrics.page()


async def test_an_exchange_closed_during_its_prediction_leaves_nothing_in_flight() -> None:
    answered = asyncio.Event()

    class Slow(FixedPredictions):
        def predict(self, columns: FeatureColumns) -> Any:
            async def later() -> Predictions:
                await answered.wait()
                return super(Slow, self).predict(columns)

            return later()

    director = build_director(latency=Slow([(1, 1), (1, 1)]))
    gateway = Gateway(director)
    await gateway.request_headers(**SLO_HEADERS)
    picking = asyncio.create_task(gateway.request_body(CHAT))
    await asyncio.sleep(0)
    gateway.exchange.close()
    answered.set()
    await picking
    assert director.books.pool.own_requests.in_flight == 0


async def test_an_unexpected_error_is_a_500_and_leaves_nothing_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Snapshot:
        raise ZeroDivisionError

    monkeypatch.setattr(Pool, "snapshot", broken)
    director = build_director()
    gateway = Gateway(director)
    await gateway.request_headers(**SLO_HEADERS)
    (answer,) = await gateway.request_body(CHAT)
    assert answer.immediate_response.status.code == 500
    assert b"Internal" in answer.immediate_response.body
    assert director.books.pool.own_requests.in_flight == 0


async def test_the_dynamic_metadata_has_every_candidates_score_if_configured() -> None:
    gateway = Gateway(build_director(endpoints=3), visibility=Visibility(scores=True))
    await gateway.request_headers()
    (answer,) = await gateway.request_body(CHAT)
    scores = answer.dynamic_metadata.fields["envoy.lb"].struct_value.fields[SCORES_KEY].struct_value.fields
    assert {address: score.number_value for address, score in scores.items()} == {
        f"10.0.0.{number}:8000": 2.0 for number in range(3)
    }


async def test_unknown_model_names_cannot_fill_the_metrics() -> None:
    director = build_director()
    for name in ("m", "n" * 10_000, *(f"m{index}" for index in range(1_100))):
        gateway = Gateway(director)
        await gateway.request_headers()
        await gateway.request_body(json.dumps({"model": name, "prompt": "p"}).encode())
    counts = {
        sample.labels["model_name"]: sample.value
        for family in director.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "inference_model_request_total"
    }
    assert len(counts) == 1_000
    assert (counts["m"], counts["other"]) == (1, 103)


async def test_an_error_in_the_accounting_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    director = build_director()
    gateway = Gateway(director)
    await gateway.request_headers()
    monkeypatch.setattr(director.books.decisions, "add", None)
    (answer,) = await gateway.request_body(CHAT)
    assert DESTINATION in set_headers(answer)
    await gateway.response_headers()
    gateway.exchange.close()
    assert director.books.pool.own_requests.in_flight == 0
