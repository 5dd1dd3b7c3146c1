import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.request.stream import EventStream


def event(content: str | None, **fields: object) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
STREAM = b"".join([ROLE, event("a"), event("b"), event('c "usage": {"x"'), b"data: [DONE]\n\n"])


def test_events_with_output_are_counted_and_not_chunks() -> None:
    stream = EventStream()
    chunks = [ROLE, event("a"), event("b") + event("c"), b"data: [DONE]\n\n"]
    assert [stream.feed(chunk) for chunk in chunks] == [0, 1, 2, 0]


def test_the_servers_own_count_is_returned() -> None:
    stream = EventStream()
    stream.feed(event("two tokens"))
    stream.feed(event(None, usage={"prompt_tokens": 7, "completion_tokens": 5}))
    assert stream.usage is not None
    assert (stream.usage.prompt, stream.usage.output) == (7, 5)


@pytest.mark.parametrize("usage", [{}, None, {"completion_tokens": None}, "text", [1], {"completion_tokens": "x"}])
def test_a_strange_usage_is_harmless(usage: object) -> None:
    assert EventStream().feed(event("a") + event("b", usage=usage) + event("c")) >= 2


@pytest.mark.parametrize(("count", "believed"), [(10**18, 1024), (-5, 0), (0, 1), (3, 3)])
def test_a_strange_continuous_usage_is_bounded(count: int, believed: int) -> None:
    assert EventStream().feed(event("a", usage={"completion_tokens": count})) == believed


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_the_cuts_between_chunks_do_not_matter(cuts: list[int]) -> None:
    stream = EventStream()
    edges = [0, *sorted(cuts), len(STREAM)]
    assert sum(stream.feed(STREAM[start:end]) for start, end in itertools.pairwise(edges)) == 3


@pytest.mark.parametrize(
    ("end", "is_complete"),
    [
        (b"", False),
        (event("b"), False),
        (event("b")[:-9], False),
        (b"data: [DONE]\n\n", True),
        (b"data: [DONE]", True),
        (event(None, usage={"completion_tokens": 1}), True),
        (event("b", usage={"completion_tokens": 1}), False),
        (b'data: {"error": {"message": "out of memory"}}\n\n', True),
        (b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n', True),
        (b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": null}]}\n\n', False),
    ],
)
def test_an_answer_is_complete_if_an_event_may_end_it(end: bytes, is_complete: bool) -> None:
    stream = EventStream()
    stream.feed(event("a") + end)
    assert stream.is_complete is is_complete


@pytest.mark.parametrize(
    ("events", "is_complete"),
    [
        (b'data: {"type": "response.output_text.delta", "delta": "a"}\n\n', False),
        (b'data: {"type": "response.completed", "response": {}}\n\n', True),
        (b'data: {"type": "content_block_delta", "delta": {"text": "a"}}\n\n', None),
        (b'data: {"progress": 0.5}\n\n', None),
        (b"", None),
    ],
)
def test_only_streams_of_known_apis_are_judged(events: bytes, is_complete: bool | None) -> None:
    stream = EventStream()
    stream.feed(events)
    assert stream.is_complete is is_complete


@given(st.binary(max_size=300))
def test_any_bytes_are_accepted(data: bytes) -> None:
    EventStream().feed(data + b"\n\n")
