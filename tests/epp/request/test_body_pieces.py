from hypothesis import given
from hypothesis import strategies as st

from epp.request import body_pieces
from epp.request.body_pieces import Piece, Rewrite
from epp.request.openai import Span


@given(st.lists(st.binary(max_size=20)), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_pieces_are_cut_as_the_whole(chunks: list[bytes], count: int, start: int, length: int) -> None:
    pieces: list[Piece] = []
    for chunk in chunks:
        body_pieces.add(pieces, chunk)
    whole = b"".join(chunks)
    start = min(start, len(whole))
    end = min(start + length, len(whole))
    assert body_pieces.leading(pieces, count) == whole[:count]
    assert body_pieces.trailing(pieces, count) == whole[max(len(whole) - count, 0) :]
    assert b"".join(Rewrite(Span(start, end), b"new").apply(pieces)) == whole[:start] + b"new" + whole[end:]


def test_single_bytes_are_joined_and_larger_pieces_are_kept() -> None:
    pieces: list[Piece] = []
    for _ in range(100_000):
        body_pieces.add(pieces, b"x")
    large = bytes(1 << 16)
    body_pieces.add(pieces, large)
    body_pieces.add(pieces, large)
    assert len(pieces) <= 5
    assert pieces[-1] is large
