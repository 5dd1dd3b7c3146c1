"""Large bodies are read in turns of the event loop that are short, whatever the bodies contain."""

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Mapping

import pytest

from epp.exceptions import BadRequestError
from epp.request import openai
from epp.request.large_bodies import TAIL_BYTES, ReceivedBody, is_cheap
from epp.request.parsed import ParsedRequest, RequestReader
from epp.request.tokens import TokenEstimator
from epp.scheduling.plugins.prefix import PrefixParameters

MIB = 1 << 20
# Bytes of objects that one turn may make of a body. A list of 8,192 small objects has about one MiB.
TURN_BYTES = 6 * MIB
PATH = {":path": "/v1/completions"}

TOKEN_IDS = json.dumps({"model": "m", "prompt": [100_000 + index % 20_000 for index in range(250_000)]}).encode()
EMPTY_LISTS = b'{"model": "m", "prompt": [' + b"[]," * (31 * MIB // 3) + b"[]]}"
EMPTY_PARTS = b'{"model": "m", "messages": [{"content": [' + b"{}," * (MIB // 4) + b"{}]}]}"
EMPTY_MESSAGES = b'{"model": "m", "messages": [' + b"{}," * (MIB // 4) + b"{}]}"
ODD_MODEL = b'{"messages": 3, "model": [' + b"[]," * (MIB // 4) + b"[]]}"
NO_PROMPT = b'{"model": "m", "x": [' + b"[]," * (MIB // 4) + b"[]]}"
DEEP = b'{"model": "m", "prompt": ' + b"[" * (2 * MIB)
BACKSLASHES = b'{"model": "m", "prompt": "' + b"\\\\" * MIB + b'"}'


def received(body: bytes, most: int = MIB) -> ReceivedBody:
    """Return the body as an exchange passes it to a reader."""
    return ReceivedBody.whole(body) if len(body) <= most else ReceivedBody(body[:most], len(body), body[-TAIL_BYTES:])


def reading(body: bytes | ReceivedBody, headers: Mapping[str, str] = PATH) -> ParsedRequest | Awaitable[ParsedRequest]:
    return RequestReader(TokenEstimator()).read(headers, body, PrefixParameters())


async def read(body: bytes, headers: Mapping[str, str] = PATH) -> ParsedRequest:
    found = reading(received(body), headers)
    return found if isinstance(found, ParsedRequest) else await found


@pytest.mark.parametrize(
    "body",
    [TOKEN_IDS, EMPTY_LISTS, EMPTY_PARTS, EMPTY_MESSAGES, ODD_MODEL, NO_PROMPT, DEEP, BACKSLASHES],
    ids=["ids", "lists", "parts", "messages", "model", "unread", "deep", "backslashes"],
)
async def test_no_turn_makes_many_objects_of_a_body(body: bytes) -> None:
    """One turn of the old reader took all of the body: up to 1.5 GB of objects, and 15 s."""
    took = received(body)
    tracemalloc.start()
    peaks = []
    try:
        found = reading(took)
        peaks.append(tracemalloc.get_traced_memory()[1])
        turns = None if isinstance(found, ParsedRequest) else found.__await__()
        while turns:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            try:
                next(turns)
            except (StopIteration, BadRequestError):
                turns = None
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    except BadRequestError:
        pass
    finally:
        tracemalloc.stop()
    assert max(peaks) < TURN_BYTES


async def test_others_have_their_turns_while_bodies_are_read() -> None:
    order: list[str] = []

    async def large() -> None:
        await read(TOKEN_IDS)
        order.append("large")

    async def small() -> None:
        await read(b'{"model": "m", "prompt": "p"}')
        order.append("small")

    await asyncio.gather(*(large() for _ in range(6)), *(small() for _ in range(50)))
    assert order == ["small"] * 50 + ["large"] * 6


async def test_commas_in_texts_are_no_values() -> None:
    text = 'a, [b], {"c": 1}, \\ \N{SNOWMAN} ' * 10_000
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    assert not is_cheap(body)
    parsed = await read(body)
    assert (parsed.unread, parsed.prompt_bytes) == ("", len(openai.parse_body(body).text.encode()))


@pytest.mark.parametrize("separator", [",", " ,\n"])
@pytest.mark.parametrize("field", ["prompt", "input"])
async def test_token_ids_are_counted_exactly(separator: str, field: str) -> None:
    ids = range(1000, 31_000)
    body = f'{{"model": "m", "tools": [1], "{field}": [{separator.join(map(str, ids))}]}}'.encode()
    parsed = await read(body)
    assert (parsed.request.input_tokens, parsed.is_exact, parsed.unread) == (30_000, True, "")
    assert openai.parse_token_ids(body) == openai.parse_body(body)


@pytest.mark.parametrize(
    "prompt", ["[1, 2, 3]", "[[1, 2], [3]]", "[]", "[[]]", '["a"]', "[1, [2]]", "[[[1]]]", "[1.5]", "3", '"x"', "null"]
)
def test_token_ids_are_read_as_by_the_parser_or_not_at_all(prompt: str) -> None:
    body = f'{{"model": "m", "prompt": {prompt}}}'.encode()
    found, expected = openai.parse_token_ids(body), openai.parse_body(body)
    assert found in (expected, openai.Prompt("m"))
    assert (found.tokens == expected.tokens) or prompt == "[1, [2]]"


async def test_many_values_are_read_in_part() -> None:
    messages = [{"role": "user", "content": f"question {index}"} for index in range(20_000)]
    body = json.dumps({"messages": messages, "model": "m"}).encode()
    whole = openai.parse_body(body)
    parsed = await read(body)
    assert (parsed.unread, parsed.request.model) == ("elements", "m")
    assert 0.9 < parsed.prompt_bytes / len(whole.text) < 1.1
    assert parsed.request.block_hashes


@pytest.mark.parametrize("model_first", [True, False])
async def test_a_body_beyond_the_limit_is_read_in_part(model_first: bool) -> None:
    prompt, model = {"prompt": "word " * 600_000}, {"model": "adapter"}
    body = json.dumps({**model, **prompt} if model_first else {**prompt, "stream": True, **model}).encode()
    parsed = await read(body)
    assert (parsed.unread, parsed.request.model, parsed.body_bytes) == ("size", "adapter", len(body))
    assert abs(parsed.prompt_bytes / 3_000_000 - 1) < 0.01
    start = json.dumps({"model": "adapter", "prompt": "word " * 10_000}).encode()
    assert parsed.request.block_hashes == (await read(start)).request.block_hashes


async def test_a_name_that_is_cut_is_no_model() -> None:
    body = b'{"prompt": "' + b"x" * 100 + b'", "model": "adapter-1", "y": "' + b"y" * 1000 + b'"}'
    cut = body.index(b"-1")
    found = reading(ReceivedBody(body[:cut], len(body)))
    assert not isinstance(found, ParsedRequest)
    parsed = await found
    assert (parsed.request.model, parsed.unread) == ("", "size")


async def test_a_model_of_an_object_within_is_not_the_bodys() -> None:
    body = b'{"model": "right", "metadata": {"text": "' + b"x" * MIB + b'", "model": "wrong"}}'
    assert openai.find_model(body[-1000:]) is None
    assert (await read(body)).request.model == "right"


@pytest.mark.parametrize("end", [b"", b"]", b"]]}"])
async def test_a_large_body_that_is_no_request_is_refused(end: bytes) -> None:
    with pytest.raises(BadRequestError, match="request body"):
        await read(b'{"prompt": [' + b"1," * 20_000 + b"1" + end)


async def test_of_many_waiting_bodies_only_the_beginning_is_read() -> None:
    reader = RequestReader(TokenEstimator())

    async def one() -> str:
        found = reader.read(PATH, received(EMPTY_PARTS), PrefixParameters())
        assert not isinstance(found, ParsedRequest)
        return (await found).unread

    reasons = await asyncio.gather(*(one() for _ in range(50)))
    assert reasons.count("busy") >= 40
    assert set(reasons) == {"busy", "elements"}


async def test_long_names_are_kept_short() -> None:
    name = "n" * 100_000
    body = json.dumps({"model": name, "prompt": "p"}).encode()
    request = (await read(body, {**PATH, "x-request-id": name})).request
    assert len(request.model) < 300
    assert len(request.id) < 300
    other = await read(json.dumps({"model": name + "o", "prompt": "p"}).encode())
    assert other.request.model != request.model
