import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.request.stream import StreamObserver


def event(content: str | None, **fields: object) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


STREAM = b"".join([event(""), event("a"), event("b"), event('c "usage": {"x"'), b"data: [DONE]\n\n"])


def test_tokens_and_times_are_those_of_the_events() -> None:
    observer = StreamObserver()
    for at, chunk in enumerate([event(""), event("a"), event("b") + event("c"), b"data: [DONE]\n\n"]):
        observer.feed(chunk, float(at))
    assert (observer.tokens, observer.first_at, observer.last_at) == (3, 1.0, 2.0)
    assert observer.tpot_ms == 500.0


def test_the_servers_own_count_wins() -> None:
    observer = StreamObserver()
    observer.feed(event("two tokens"), 1.0)
    observer.feed(event("three more tokens"), 2.0)
    observer.feed(event(None, usage={"prompt_tokens": 7, "completion_tokens": 5}), 3.0)
    assert (observer.tokens, observer.prompt_tokens, observer.tpot_ms) == (5, 7, 250.0)


@pytest.mark.parametrize("usage", [{}, None, {"completion_tokens": None}, "text", [1], {"completion_tokens": "x"}])
def test_a_strange_usage_is_harmless(usage: object) -> None:
    observer = StreamObserver()
    observer.feed(event("a") + event("b", usage=usage) + event("c"), 1.0)
    assert observer.tokens >= 2


def test_one_token_has_no_time_per_token() -> None:
    observer = StreamObserver()
    observer.feed(event("a"), 1.0)
    assert observer.tpot_ms is None


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_the_cuts_between_chunks_do_not_matter(cuts: list[int]) -> None:
    observer = StreamObserver()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        observer.feed(STREAM[start:end], 1.0)
    assert observer.tokens == 3


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(data: bytes) -> None:
    StreamObserver().feed(data + b"\n\n", 1.0)
