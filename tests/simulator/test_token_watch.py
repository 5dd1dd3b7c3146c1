import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.answer import DONE, Frame
from simulator.sequence import Sequence
from simulator.token_watch import TokenWatch

FRAME = Frame("r", "m", True, 0)
STREAM = FRAME.role_chunk() + FRAME.token_chunk() * 3 + FRAME.token_chunk(last=True) + DONE


@given(st.sets(st.integers(0, len(STREAM))))
def test_tokens_are_counted_in_chunks_of_any_size(cuts: set[int]) -> None:
    watch = TokenWatch()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        watch.feed(STREAM[start:end], float(end))
    assert (watch.tokens, watch.done, watch.error) == (4, True, None)


def test_tpot_spans_the_first_to_the_last_token() -> None:
    watch = TokenWatch()
    for now, event in [
        (1.0, FRAME.role_chunk()),
        *((float(now), FRAME.token_chunk()) for now in (2, 4, 6)),
        (9.0, DONE),
    ]:
        watch.feed(event, now)
    assert (watch.first_at, watch.tpot_ms) == (2.0, 2000.0)


def test_a_single_token_has_no_tpot() -> None:
    watch = TokenWatch()
    watch.feed(FRAME.token_chunk(), 1.0)
    assert watch.tpot_ms is None


def test_reported_usage_overrides_the_count_of_events() -> None:
    watch = TokenWatch()
    watch.feed(FRAME.token_chunk(), 1.0)
    watch.feed(FRAME.token_chunk() + FRAME.usage_chunk(Sequence("s", (), 1, 5)), 2.0)
    assert (watch.tokens, watch.tpot_ms) == (5, 250.0)


@pytest.mark.parametrize("space", [b"", b" "])
def test_an_error_within_the_stream_is_kept(space: bytes) -> None:
    watch = TokenWatch()
    watch.feed(b"data:" + space + b'{"error": {"message": "out of luck"}}\n\n' + DONE, 1.0)
    assert watch.error
    assert "out of luck" in watch.error


def test_a_space_after_the_colon_changes_nothing() -> None:
    watch = TokenWatch()
    watch.feed(b'data: {"delta": {"content": ""}}\n\ndata: {"delta": {"content": "a"}}\n\n', 1.0)
    assert watch.tokens == 1
