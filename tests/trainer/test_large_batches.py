"""Large batches are decoded in pieces, few at a time, and to the same rows as at once."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import numpy as np
import pytest

from trainer import large_batches, wire
from trainer.exceptions import BusyError, EntryError
from trainer.ingestion import Ingestion
from trainer.large_batches import LargeBatches, decode_in_pieces
from trainer.window import Window
from trainer.wire import Samples, decode_batch, join

JSON = "application/json"
ROW = {
    "kv_cache_percentage": 0.5,
    "num_request_waiting": 2,
    "num_request_running": 3,
    "num_tokens_generated": 4,
    "prefix_cache_score": 0.25,
    "actual_ttft_ms": 10.0,
    "actual_tpot_ms": 1.0,
}


def body_of(count: int, **more: object) -> bytes:
    rows = [{**ROW, **more, "input_token_length": number} for number in range(count)]
    return msgspec.json.encode({"entries": rows})


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_batches, "AT_ONCE_BYTES", 1_000)
    monkeypatch.setattr(large_batches, "_PIECE_BYTES", 1_000)


@pytest.mark.parametrize("more", [{}, {"note": "a }, { b"}, {"inner": [{"a": 1}, {"b": 2}]}])
@pytest.mark.parametrize("spaces", [False, True])
def test_pieces_have_the_rows_of_the_whole(small_pieces: None, more: dict[str, object], spaces: bool) -> None:
    body = body_of(300, **more)
    body = msgspec.json.format(body, indent=2) if spaces else body
    pieces = list(decode_in_pieces(body, JSON))
    assert len(pieces) > 30
    np.testing.assert_array_equal(join(pieces).features, decode_batch(body).features)


def test_a_wrong_row_is_named_by_its_place_in_the_batch(small_pieces: None) -> None:
    rows = [{**ROW, "input_token_length": 1} for _ in range(300)]
    rows[250] = {**rows[250], "kv_cache_percentage": 2}
    with pytest.raises(EntryError) as found:
        list(decode_in_pieces(msgspec.json.encode({"entries": rows}), JSON))
    assert found.value.location == ["body", "entries", "250", "kv_cache_percentage"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (msgspec.msgpack.encode({"entries": [ROW] * 30}), "application/msgpack"),
        (b"[" * 5_000 + b"]" * 5_000, JSON),
        (b'{"entries":[' + b"{" * 50_000 + b"]}", JSON),
        (b'{"entries":[' + b"},{" * 50_000 + b"]}", JSON),
        (b'{"entries":[' + b" " * 50_000 + b"]}x", JSON),
        (b'{"entries":[]}' + b" " * 5_000 + b"]", JSON),
    ],
)
async def test_another_large_body_is_refused_after_little_work(
    small_pieces: None, body: bytes, content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counted(piece: bytes, content_type: str = JSON) -> Samples:
        decoded.append(len(piece))
        return decode_batch(piece, content_type)

    monkeypatch.setattr(large_batches, "decode_batch", counted)
    with pytest.raises(EntryError):
        await LargeBatches().decode(body, content_type)
    assert sum(decoded) <= 20_000


async def turns_of(work: Callable[[], Awaitable[object]]) -> int:
    """Return how many turns of the event loop others had until `work` was done."""
    task = asyncio.ensure_future(work())
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    return turns


async def test_others_have_turns_while_a_large_batch_is_decoded_and_added() -> None:
    batches, ingestion = LargeBatches(), Ingestion(Window(1000, 0.2, 100), None)
    body = body_of(12_000)
    assert await turns_of(lambda: batches.decode(body, JSON)) >= len(body) >> 19
    samples = decode_batch(body)
    assert await turns_of(lambda: ingestion.accept("", samples)) >= 3


async def test_few_large_batches_wait_and_small_ones_never_do(small_pieces: None) -> None:
    batches = LargeBatches()
    body = body_of(50)
    waiting = [asyncio.create_task(batches.decode(body, JSON)) for _ in range(40)]
    await asyncio.sleep(0)
    assert len(await batches.decode(body_of(1), JSON)) == 1
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [len(one) for one in found if isinstance(one, wire.Samples)] == [50] * 4
    assert sum(isinstance(one, BusyError) for one in found) == 36
    assert len(await batches.decode(body, JSON)) == 50
