import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.request.stream import EventStream


def event(content: str | None, **fields: object) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


STREAM = b"".join([event(""), event("a"), event("b"), event('c "usage": {"x"'), b"data: [DONE]\n\n"])


def test_events_with_output_are_counted_and_not_chunks() -> None:
    stream = EventStream()
    chunks = [event(""), event("a"), event("b") + event("c"), b"data: [DONE]\n\n"]
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


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_the_cuts_between_chunks_do_not_matter(cuts: list[int]) -> None:
    stream = EventStream()
    edges = [0, *sorted(cuts), len(STREAM)]
    assert sum(stream.feed(STREAM[start:end]) for start, end in itertools.pairwise(edges)) == 3


@given(st.binary(max_size=300))
def test_any_bytes_are_accepted(data: bytes) -> None:
    EventStream().feed(data + b"\n\n")
