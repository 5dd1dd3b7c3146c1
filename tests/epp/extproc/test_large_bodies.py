"""One client's large bodies hold nobody up, and go on as they came."""

import asyncio
import json
import tracemalloc
from collections.abc import Sequence

import pytest

from epp.extproc import messages
from epp.extproc.messages import CHUNK_BYTES
from epp.extproc.protocol.external_processor_pb2 import HttpBody, ProcessingRequest, ProcessingResponse
from epp.request.director import Director
from tests.epp.parts import CHAT, Gateway, build_director, set_headers

MIB = 1 << 20
DESTINATION = "x-gateway-destination-endpoint"
TOKEN_IDS = json.dumps({"model": "m", "prompt": [100_000 + index % 20_000 for index in range(250_000)]}).encode()
EMPTY_LISTS = b'{"model": "m", "prompt": [' + b"[]," * (4 * MIB // 3) + b"[]]}"
TEXT = json.dumps({"prompt": "word " * 500_000, "model": "m"}).encode()


async def stream(gateway: Gateway, body: bytes, chunk_bytes: int = 1 << 16) -> list[ProcessingResponse]:
    """Send a body in full duplex; return the answers to all of it."""
    answers = []
    for start in range(0, len(body), chunk_bytes):
        chunk = body[start : start + chunk_bytes]
        answers += await gateway.request_body(chunk, end_of_stream=start + chunk_bytes >= len(body))
    return answers


def handed_back(answers: Sequence[ProcessingResponse]) -> bytes:
    """Return the body that the answers hand back, whose last piece alone ends the stream."""
    pieces = [answer.request_body.response.body_mutation.streamed_response for answer in answers]
    assert [piece.end_of_stream for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert max(len(piece.body) for piece in pieces) <= CHUNK_BYTES
    return b"".join(piece.body for piece in pieces)


def partly_read(director: Director) -> dict[str, float]:
    families = director.metrics.registry.collect()
    samples = [sample for family in families for sample in family.samples]
    name = "headroom_epp_partly_read_bodies_total"
    return {sample.labels["reason"]: sample.value for sample in samples if sample.name == name}


@pytest.mark.parametrize("body", [TOKEN_IDS, EMPTY_LISTS], ids=["ids", "lists"])
async def test_neighbours_are_picked_while_a_large_body_is_read(body: bytes) -> None:
    director, picked = build_director(), []

    async def pick(name: str, body: bytes) -> None:
        gateway = Gateway(director)
        await gateway.request_headers()
        (answer,) = await gateway.request_body(body)
        assert DESTINATION in set_headers(answer)
        picked.append(name)

    await asyncio.gather(*(pick("attacker", body) for _ in range(3)), *(pick("neighbour", CHAT) for _ in range(20)))
    assert picked == ["neighbour"] * 20 + ["attacker"] * 3


@pytest.mark.parametrize("body", [TOKEN_IDS, EMPTY_LISTS], ids=["ids", "lists"])
async def test_a_large_body_becomes_few_objects(body: bytes) -> None:
    gateway = Gateway(build_director())
    await gateway.request_headers()
    message = ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True)).SerializeToString()
    tracemalloc.start()
    try:
        answers = gateway.exchange.receive(message)
        (answer,) = answers if isinstance(answers, list) else await answers
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert DESTINATION in set_headers(ProcessingResponse.FromString(answer))
    assert peak < 8 * MIB


@pytest.mark.parametrize("chunk_bytes", [10_000, 1 << 16, 300_000])
async def test_a_full_duplex_body_beyond_the_limit_goes_on_before_its_end(chunk_bytes: int) -> None:
    director = build_director()
    gateway = Gateway(director, full_duplex=True)
    await gateway.request_headers(content_length=str(len(TEXT)))
    picked, *pieces = await stream(gateway, TEXT, chunk_bytes)
    assert DESTINATION in set_headers(picked)
    assert handed_back(pieces) == TEXT
    (record,) = director.books.decisions.newest(1)
    assert abs(record.decision.request.input_tokens / (2_500_000 / 4) - 1) < 0.01
    assert partly_read(director) == {"size": 1}


async def test_the_picker_keeps_no_more_of_a_body_than_it_reads() -> None:
    gateway = Gateway(build_director(), full_duplex=True)
    await gateway.request_headers()
    tracemalloc.start()
    try:
        for _ in range(128):
            await gateway.request_body(b" " * (MIB // 8), end_of_stream=False)
            tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 3 * MIB


async def test_single_bytes_are_kept_together() -> None:
    gateway = Gateway(build_director(), full_duplex=True)
    await gateway.request_headers()
    body = json.dumps({"model": "m", "prompt": "p" * 50_000}).encode()
    picked, *pieces = await stream(gateway, body, 1)
    assert DESTINATION in set_headers(picked)
    assert handed_back(pieces) == body
    assert len(pieces) <= 2


@pytest.mark.parametrize("full_duplex", [False, True])
@pytest.mark.parametrize("model_first", [False, True])
async def test_the_model_of_a_large_body_is_rewritten(full_duplex: bool, model_first: bool) -> None:
    fields = {"model": "a", "prompt": "word " * 500_000} if model_first else {"prompt": "word " * 500_000, "model": "a"}
    body = json.dumps(fields).encode()
    gateway = Gateway(build_director(), full_duplex=full_duplex)
    await gateway.request_headers(x_gateway_model_name_rewrite="another", content_length=str(len(body)))
    picked, *pieces = await (stream(gateway, body) if full_duplex else gateway.request_body(body))
    rewritten = handed_back(pieces) if full_duplex else picked.request_body.response.body_mutation.body
    assert json.loads(rewritten) == {**fields, "model": "another"}
    assert set_headers(picked)["content-length"] == str(len(rewritten))


async def test_a_body_that_goes_on_is_still_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.extproc.exchange.MAX_BODY_BYTES", 2 * MIB)
    director = build_director()
    gateway = Gateway(director, full_duplex=True)
    await gateway.request_headers()
    *_, last = await stream(gateway, TEXT)
    assert last.immediate_response.status.code == 413
    gateway.exchange.close()
    assert director.books.pool.own_requests.in_flight == 0


@pytest.mark.parametrize("end_of_stream", [False, True])
@pytest.mark.parametrize("size", [10, 1 << 18, MIB])
def test_a_large_body_is_found_in_its_message_without_a_copy(size: int, end_of_stream: bool) -> None:
    body = bytes(size)
    data = ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=end_of_stream)).SerializeToString()
    found = messages.large_request_body(data)
    assert found is None if size == 10 else found and (bytes(found[0]), found[1]) == (body, end_of_stream)


@pytest.mark.parametrize("data", [b"\x22", b"\x22\xff", b"\x22\x80\x80\x10\x0a", b"\x22\xfc\xff\x3f\x0a", b"\x12"])
def test_other_large_messages_go_to_the_general_parser(data: bytes) -> None:
    assert messages.large_request_body(data + b"\xff" * MIB) is None
