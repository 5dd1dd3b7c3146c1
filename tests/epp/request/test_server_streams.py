"""Replay streams of model servers, and compare what the picker counts and measures with what the server generated.

`streams/` has a folder for each server. A stream NAME.sse has its facts beside it in NAME.json:

- `server`: the name and version. `made`: `recorded`, or `written from source`. `source`: where its form is from.
- `request`: the fields of the request that shape the stream.
- `prompt_tokens`, `output_tokens`: the usage; `prompt_tokens` is null in a stream without usage.
- `counted_tokens`: the tokens that the events tell without the last usage.
- `followed_tokens`: the tokens of one choice.
- `first_token`, `last_token`: the events of the followed choice's first and last token, counted from 0. A comment
  counts as an event. If events tell fewer tokens than the usage, the last token came with the choice's end.

A recorded stream may replace a written one.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from epp.request.decisions import Record
from epp.request.director import Director
from epp.request.stream import EventStream
from tests.epp.parts import CHAT, Gateway, build_director, queued_rows

FOLDER = Path(__file__).parent / "streams"
NAMES = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.sse"))
EVENT_S = 0.01
TTFT_S = 1.0


class Facts(msgspec.Struct, forbid_unknown_fields=True):
    server: str
    made: Literal["recorded", "written from source"]
    source: str
    request: dict[str, object]
    prompt_tokens: int | None
    output_tokens: int
    counted_tokens: int
    followed_tokens: int
    first_token: int
    last_token: int
    note: str = ""


@dataclass(frozen=True)
class Stream:
    facts: Facts
    body: bytes

    @property
    def events(self) -> list[bytes]:
        return re.findall(rb".*?\r?\n\r?\n", self.body, re.DOTALL)


@pytest.fixture(params=NAMES)
def stream(request: pytest.FixtureRequest) -> Stream:
    path = FOLDER / request.param
    facts = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Facts)
    return Stream(facts, path.with_suffix(".sse").read_bytes())


def cuts(body: bytes) -> Iterator[list[bytes]]:
    for size in (1, 7, 100, 1500, len(body)):
        yield [body[start : start + size] for start in range(0, len(body), size)]


def test_what_is_counted_equals_the_usage_wherever_the_stream_is_cut(stream: Stream) -> None:
    facts = stream.facts
    for chunks in cuts(stream.body):
        reader = EventStream()
        counted = sum(map(reader.feed, chunks)) + reader.other_tokens
        assert counted == facts.counted_tokens
        assert reader.is_complete
        if facts.prompt_tokens is None:
            assert reader.usage is None
        else:
            assert reader.usage is not None
            assert (reader.usage.prompt, reader.usage.output) == (facts.prompt_tokens, facts.output_tokens)


async def test_latencies_are_those_of_the_tokens(stream: Stream) -> None:
    facts = stream.facts
    record, rows = await observe(stream.events)
    first_ms = 1000 * (TTFT_S + facts.first_token * EVENT_S)
    steps_ms = 1000 * (facts.last_token - facts.first_token) * EVENT_S
    tpot_ms = steps_ms / (facts.followed_tokens - 1)
    outcome = record.outcome
    assert outcome.output_tokens == facts.output_tokens
    assert outcome.ttft_ms == pytest.approx(first_ms)
    assert outcome.tpot_ms == pytest.approx(tpot_ms)
    assert rows[:2] == [pytest.approx((first_ms, 0)), pytest.approx((0, tpot_ms))]


async def observe(events: list[bytes], director: Director | None = None) -> tuple[Record, list[tuple[float, float]]]:
    """Have a picker observe a stream with an event each 10 ms, the first one a second after the request."""
    now_s = [100.0]
    director = director or build_director()
    director.clock = lambda: now_s[0]
    gateway = Gateway(director)
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    now_s[0] += TTFT_S
    await gateway.response_headers()
    for number, event in enumerate(events):
        now_s[0] = 100 + TTFT_S + number * EVENT_S
        await gateway.response_body(event)
    await gateway.response_body(b"", end_of_stream=True)
    gateway.exchange.close()
    (record,) = director.books.decisions.newest(1)
    return record, [(row.actual_ttft_ms, row.actual_tpot_ms) for row in queued_rows(director)]


def test_every_server_has_streams() -> None:
    servers = {json.loads((FOLDER / name).with_suffix(".json").read_bytes())["server"].split()[0] for name in NAMES}
    assert servers >= {"vLLM", "SGLang", "TensorRT-LLM"}


def chat(index: int, finish_reason: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": "a"}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


async def test_when_a_choice_has_ended_the_next_one_is_followed() -> None:
    """The first choice has 4 tokens, and the second 40."""
    events = [chat(0) + chat(1) for _ in range(3)] + [chat(0, "stop") + chat(1)] + [chat(1) for _ in range(36)]
    record, rows = await observe([*events, b"data: [DONE]\n\n"])
    assert record.outcome.output_tokens == 44
    assert record.outcome.tpot_ms == pytest.approx(1000 * EVENT_S)
    assert [tpot_ms for _, tpot_ms in rows] == [0, *[pytest.approx(1000 * EVENT_S)] * 2]


async def test_the_pace_of_events_of_several_tokens_is_that_of_their_tokens() -> None:
    """Each event has three tokens, which only the usage at the end tells. An event comes each 10 ms."""
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 102}}\n\n'
    director = build_director(endpoints=1)
    for _ in range(30):
        await observe([chat(0) for _ in range(34)] + [usage], director)
    pool = director.books.pool
    assert pool.everyone().recent_tpot_ms[0] == pytest.approx(1000 * EVENT_S / 3, rel=0.1)
    record, _ = await observe([chat(0)] * 34, director)
    assert record.outcome.tpot_ms == pytest.approx(33 * 1000 * EVENT_S / 101)
