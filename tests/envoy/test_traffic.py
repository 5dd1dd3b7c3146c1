"""Send every kind of request and answer through a real Envoy, in both body modes, over HTTP/1.1 and HTTP/2."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import pytest
import pytest_asyncio
from google.protobuf.struct_pb2 import ListValue, Value

from tests.envoy.backends import ANSWER, EVENTS, LARGE, Backend, Received
from tests.envoy.clients import Answer, Body, over_http1
from tests.envoy.rig import Rig, running, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PATH = "/v1/chat/completions"
REQUEST = json.dumps({"model": "m", "messages": [{"role": "user", "content": "grüße " * 20}]}).encode()
DESTINATION = "x-gateway-destination-endpoint"
SUBSET = "x-gateway-destination-endpoint-subset"


class Send(Protocol):
    async def __call__(
        self, path: str, *, method: str = ..., headers: Mapping[str, str] | None = ..., body: Body = ...
    ) -> Answer: ...


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True], ids=["buffered", "full-duplex"])
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    folder = tmp_path_factory.mktemp("traffic")
    async with running(folder, full_duplex=request.param, edit=complete) as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def rig(shared: Rig) -> AsyncIterator[Rig]:
    """The shared rig with empty records. After each test, wait until the picker has nothing in flight."""
    for backend in shared.backends:
        backend.received.clear()
    yield shared
    await until(shared.is_idle)


@pytest.fixture(params=["http1", "http2"])
def send(rig: Rig, request: pytest.FixtureRequest) -> Send:
    return partial(over_http1, rig.url) if request.param == "http1" else rig.h2.send


def complete(config: dict[str, Any]) -> None:
    """Add to Envoy's configuration the subset hint and a route without retries.

    The headers x-subset and x-subset-list become the hint that limits the choice. /v1/once/ is not retried.
    """
    manager = config["staticResources"]["listeners"][0]["filterChains"][0]["filters"][0]["typedConfig"]
    manager["httpFilters"].insert(0, hint_from_headers())
    routes = manager["routeConfig"]["virtualHosts"][0]["routes"]
    once = {"match": {"prefix": "/v1/once/"}, "route": {"cluster": "pool", "timeout": "0s"}}
    routes.insert(0, once)


def hint_from_headers() -> dict[str, Any]:
    def rule(header: str, **value: str) -> dict[str, Any]:
        place = {"metadata_namespace": "envoy.lb.subset_hint", "key": SUBSET, **value}
        return {"header": header, "on_header_present": place, "remove": True}

    rules = [rule("x-subset"), rule("x-subset-list", type="PROTOBUF_VALUE", encode="BASE64")]
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config"
    return {"name": "header_to_metadata", "typed_config": {"@type": kind, "request_rules": rules}}


def only_received(rig: Rig) -> tuple[Backend, Received]:
    """Return the only request that reached a backend, with that backend."""
    (found,) = [(backend, request) for backend in rig.backends for request in backend.received]
    return found


async def test_request_and_answer_arrive_as_they_were_sent(rig: Rig, send: Send) -> None:
    answer = await send(PATH, body=REQUEST, headers={"x-mine": "kept", "x-slo-ttft-ms": "500"})
    backend, request = only_received(rig)
    assert (answer.status, answer.body) == (200, ANSWER)
    assert request.body == REQUEST
    assert request.headers[DESTINATION] == backend.address
    assert (request.headers["x-mine"], request.headers["x-slo-ttft-ms"]) == ("kept", "500")
    assert request.headers["x-request-id"] == answer.headers["x-request-id"]
    (decision,) = await rig.decisions(1)
    assert decision["request_id"] == request.headers["x-request-id"]
    assert decision["endpoint"] == backend.name


async def test_headers_for_the_picker_do_not_reach_the_backend(rig: Rig, send: Send) -> None:
    names = ("x-gateway-inference-objective", "x-llm-d-inference-objective", "x-gateway-inference-fairness-id")
    await send(PATH, body=REQUEST, headers={**dict.fromkeys(names, "a"), "x-request-id": "mine"})
    _, request = only_received(rig)
    assert not request.headers.keys() & set(names)
    assert request.headers["x-request-id"] == "mine"


async def test_a_client_cannot_choose_its_endpoint(rig: Rig, send: Send) -> None:
    stranger = Backend("stranger")
    await stranger.start()
    try:
        for wanted in (stranger.address, rig.backends[0].address, f"{stranger.address},{stranger.address}"):
            assert (await send(PATH, body=REQUEST, headers={DESTINATION: wanted})).status == 200
    finally:
        await stranger.stop()
    assert not stranger.received
    for backend in rig.backends:
        assert all(request.headers[DESTINATION] == backend.address for request in backend.received)


async def test_a_rewritten_body_has_the_right_length(rig: Rig, send: Send) -> None:
    await send(PATH, body=REQUEST, headers={"x-gateway-model-name-rewrite": "a-much-longer-name"})
    _, request = only_received(rig)
    assert json.loads(request.body) == {**json.loads(REQUEST), "model": "a-much-longer-name"}
    assert request.headers.get("content-length", str(len(request.body))) == str(len(request.body))
    assert "x-gateway-model-name-rewrite" not in request.headers


@pytest.mark.parametrize("step", [1, 7, 300])
async def test_a_stream_arrives_whole_and_its_tokens_are_counted(rig: Rig, send: Send, step: int) -> None:
    answer = await send(PATH, body=REQUEST, headers={"x-act": f"events={step}"})
    assert answer.body == EVENTS
    await until(rig.is_idle)
    (decision,) = await rig.decisions(1)
    assert decision["outcome"]["output_tokens"] == 3
    assert decision["outcome"]["ttft_ms"] > 0


async def test_large_bodies_pass_both_ways(rig: Rig, send: Send) -> None:
    large = json.dumps({"model": "m", "prompt": "0123456789" * 1_000_000}).encode()
    for kind in ("application/json", "text/event-stream"):
        answer = await send("/v1/completions", body=large, headers={"x-act": f"large={kind}"})
        assert answer.body == LARGE
    assert [request.body == large for backend in rig.backends for request in backend.received] == [True, True]
    assert await rig.metric("headroom_epp_partly_read_bodies_total", reason="size") >= 2


async def test_without_a_body_load_decides(rig: Rig, send: Send) -> None:
    assert (await send("/v1/models", method="GET")).body == ANSWER
    assert (await send(PATH)).status == 200
    assert (await send(PATH, body=[b""])).status == 200
    answer = await send("/v1/models", method="HEAD", headers={"x-act": "head"})
    assert (answer.status, answer.body) == (200, b"")
    assert rig.received == 4


async def test_empty_answers_and_errors_of_the_model_server_pass(rig: Rig, send: Send) -> None:
    assert (await send(PATH, body=REQUEST, headers={"x-act": "empty"})).body == b""
    for code in (404, 500):
        answer = await send(PATH, body=REQUEST, headers={"x-act": f"status={code}"})
        assert (answer.status, answer.body) == (code, b'{"error": "as asked"}')
        await until(rig.is_idle)
        (decision,) = await rig.decisions(1)
        assert decision["outcome"]["status"] == code


def slices(text: bytes, count: int) -> list[bytes]:
    step = -(-len(text) // count)
    return [text[start : start + step] for start in range(0, len(text), step)]


async def test_a_body_may_come_in_pieces(rig: Rig, send: Send) -> None:
    assert (await send(PATH, body=slices(REQUEST, 50))).body == ANSWER
    assert only_received(rig)[1].body == REQUEST


async def test_a_request_on_an_unknown_path_passes_with_any_body(rig: Rig, send: Send) -> None:
    assert (await send("/v1/audio/transcriptions", body=b"\x00\xffRIFF")).body == ANSWER
    assert only_received(rig)[1].body == b"\x00\xffRIFF"


async def test_whatever_servers_serve_passes(rig: Rig, send: Send) -> None:
    sent = [
        ("GET", "/health", b""),
        ("GET", "/version", b""),
        ("POST", "/ping", b""),
        ("GET", "/metrics?page=1", b""),
        ("GET", "/v1/models", b""),
        ("POST", "/tokenize", b'{"prompt": "grapes"}'),
        ("POST", "/invocations", b"\x00\xff"),
        ("PUT", "/any/where", b"x"),
        ("DELETE", "/v1/responses/resp_1", b""),
        ("OPTIONS", "/v1/chat/completions", b""),
        ("GET", "/", b""),
    ]
    for method, path, body in sent:
        answer = await send(path, method=method, body=body)
        assert (answer.status, answer.body) == (200, ANSWER), path
    received = [(one.method, one.path, one.body) for backend in rig.backends for one in backend.received]
    assert sorted(received) == sorted(sent)


async def test_a_request_without_a_model_reaches_a_server_as_it_is(rig: Rig, send: Send) -> None:
    assert (await send(PATH, body=b'{"prompt": "x"}')).status == 200
    assert only_received(rig)[1].body == b'{"prompt": "x"}'


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, b"{", "BadRequest - Error unmarshaling request body"),
        ({}, b'{"model": "\xff"}', "BadRequest - Error unmarshaling request body"),
        ({}, b"[]", "BadRequest - Error unmarshaling request body"),
        ({"x-slo-ttft-ms": "NaN"}, REQUEST, "BadRequest - x-slo-ttft-ms: expected a number of milliseconds"),
        ({"x-prediction-based-scheduling": "maybe"}, REQUEST, "BadRequest - x-prediction-based-scheduling"),
    ],
)
async def test_bad_requests_get_a_reason(rig: Rig, send: Send, headers: dict[str, str], body: bytes, said: str) -> None:
    answer = await send(PATH, body=body, headers=headers)
    assert (answer.status, rig.received) == (400, 0)
    assert said in answer.body.decode()


def encoded(addresses: Iterable[str]) -> str:
    values = ListValue(values=[Value(string_value=address) for address in addresses])
    return base64.b64encode(Value(list_value=values).SerializeToString()).decode()


async def test_a_gateway_may_limit_the_choice(rig: Rig, send: Send) -> None:
    last, others = rig.backends[-1], rig.backends[:-1]
    for _ in range(6):
        assert (await send(PATH, body=REQUEST, headers={"x-subset": last.address})).status == 200
    assert len(last.received) == 6
    for _ in range(6):
        headers = {"x-subset-list": encoded(backend.address for backend in others)}
        assert (await send(PATH, body=REQUEST, headers=headers)).status == 200
    assert len(last.received) == 6
    assert (await send(PATH, body=REQUEST, headers={"x-subset": "10.1.1.1:80"})).status == 503


async def test_a_backend_that_breaks_off_ends_the_request(rig: Rig, send: Send) -> None:
    assert (await send(PATH, body=REQUEST, headers={"x-act": "cut=before"})).status == 503
    assert (await send(PATH, body=REQUEST, headers={"x-act": "cut=amid"})).reset


async def test_a_backend_may_answer_before_it_has_read(rig: Rig, send: Send) -> None:
    body = b'{"model": "m", "prompt": "%s"}' % (b"x" * 5_000_000)
    answer = await send("/v1/completions", body=body, headers={"x-act": "early=401"})
    assert answer.status == 401


@pytest.mark.parametrize("act", ["silent", "endless"])
async def test_an_http1_client_may_leave_at_any_time(rig: Rig, act: str) -> None:
    asking = asyncio.create_task(over_http1(rig.url, PATH, body=REQUEST, headers={"x-act": act}))
    await until(lambda: arrived(rig))
    assert (await rig.endpoints())["in_flight"] == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_an_http1_client_may_leave_during_its_body(rig: Rig) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", rig.envoy_port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(REQUEST)}\r\n\r\n".encode())
    writer.write(REQUEST[:20])
    await until(lambda: has_stream(rig))
    writer.transport.abort()
    await until(lambda: has_no_stream(rig))
    assert rig.received == 0


async def test_an_http2_client_may_leave_at_any_time(rig: Rig) -> None:
    await rig.h2.send(PATH, body=REQUEST, headers={"x-act": "endless"}, abort_when=lambda answer: answer.status == 200)
    await rig.h2.send(PATH, body=REQUEST, headers={"x-act": "json"}, abort_when=lambda answer: True)


async def arrived(rig: Rig) -> bool:
    return rig.received == 1


async def has_stream(rig: Rig) -> bool:
    return await rig.envoy_stat("http.inference.downstream_rq_active") == 1


async def has_no_stream(rig: Rig) -> bool:
    return not await has_stream(rig)


async def test_trailers_pass_both_ways(rig: Rig) -> None:
    """Use a route without retries: Envoy 1.40 buffers a body for retries and sends it twice after duplex trailers."""
    for kind in ("application/json", "text/event-stream"):
        answer = await rig.h2.send(
            f"/v1/once{PATH}", body=REQUEST, headers={"x-act": f"trailers={kind}"}, trailers={"x-signature": "def"}
        )
        assert (answer.body, answer.trailers) == (EVENTS, {"x-checksum": "abc"})
    received = [request for backend in rig.backends for request in backend.received]
    assert [request.trailers for request in received] == [{"x-signature": "def"}] * 2
    assert [request.body for request in received] == [REQUEST] * 2


async def test_a_slow_body_is_waited_for(rig: Rig) -> None:
    """The body's four pieces come 0.1 s apart, and the request still succeeds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.envoy_port)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n"
    writer.write(f"{head}content-length: {len(REQUEST)}\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    for piece in slices(REQUEST, 4):
        await asyncio.sleep(0.1)
        writer.write(piece)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert only_received(rig)[1].body == REQUEST


async def test_many_streams_share_a_connection(rig: Rig) -> None:
    acts = ["json", "events=40", "events=7", "empty", "status=404"]
    asked = [
        rig.h2.send(PATH, body=REQUEST, headers={"x-act": acts[i % 5], "x-request-id": f"r{i}"}) for i in range(300)
    ]
    answers = await asyncio.gather(*asked)
    expected = {"json": ANSWER, "events=40": EVENTS, "events=7": EVENTS, "empty": b"", "status=404": answers[4].body}
    assert all(answer.body == expected[acts[i % 5]] for i, answer in enumerate(answers))
    assert {answers[i].headers["x-request-id"] for i in range(0, 300, 5)} == {f"r{i}" for i in range(0, 300, 5)}
    assert {d["request_id"] for d in await rig.decisions(300)} == {f"r{i}" for i in range(300)}


async def test_more_requests_may_wait_than_envoys_default_limit(rig: Rig) -> None:
    """Envoy's defaults allow 1024 streams to the picker and 1024 requests to the model servers at a time."""
    count = 1_100
    asking = [
        asyncio.create_task(over_http1(rig.url, PATH, body=REQUEST, headers={"x-act": "gated"})) for _ in range(count)
    ]

    async def all_wait() -> bool:
        return sum(backend.active for backend in rig.backends) == count

    try:
        await until(all_wait)
        assert (await rig.endpoints())["in_flight"] == count
    finally:
        for backend in rig.backends:
            backend.gate.set()
        answers = await asyncio.gather(*asking)
    assert {answer.status for answer in answers} == {200}


async def test_non_ascii_header_bytes_pass(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.envoy_port)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(REQUEST)}\r\n"
    writer.write(head.encode() + b"x-odd: \xff\xfe\r\n\r\n" + REQUEST)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert only_received(rig)[1].headers["x-odd"] == "\xff\xfe"


async def test_a_dead_endpoint_costs_no_request(rig: Rig, send: Send) -> None:
    """Envoy retries with another server and tells the picker which server answered."""
    dead = rig.backends[0]
    await dead.stop()
    try:
        answers = await asyncio.gather(*(send(PATH, body=REQUEST) for _ in range(12)))
    finally:
        await dead.start()
    assert [answer.status for answer in answers] == [200] * 12
    assert not dead.received


async def test_without_endpoints_the_client_gets_a_503(rig: Rig) -> None:
    rig.set_endpoints([])
    try:
        await until(lambda: has_endpoints(rig, 0))
        answer = await rig.h2.send(PATH, body=REQUEST)
    finally:
        rig.set_endpoints(rig.backends)
    assert (answer.status, rig.received) == (503, 0)
    assert b"inference gateway: ServiceUnavailable" in answer.body
    assert json.loads(answer.body)["error"]["type"] == "ServiceUnavailableError"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    await until(lambda: has_endpoints(rig, len(rig.backends)))


async def has_endpoints(rig: Rig, count: int) -> bool:
    return len((await rig.endpoints())["endpoints"]) == count


async def test_the_number_of_messages_per_request(rig: Rig) -> None:
    assert await messages(rig, method="GET", headers={"x-act": "empty"}) == 2
    assert await messages(rig, body=REQUEST, headers={"x-act": "empty"}) == 3
    # In full duplex, each piece of a body is a message, and so is its end.
    assert await messages(rig, body=REQUEST) == (5 if rig.full_duplex else 3)


async def messages(rig: Rig, **asked: Any) -> int:
    """Send one request and return the number of Envoy's messages to the picker."""
    name = "http.inference.ext_proc.stream_msgs_sent"
    before = await rig.envoy_stat(name)
    await rig.h2.send(PATH, **asked)
    return await rig.envoy_stat(name) - before
