"""Bound the memory of the streams of all connections, in bytes."""

import asyncio
import tracemalloc
from errno import ENOMEM
from itertools import islice
from struct import pack

import pytest

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import Flood
from epp.extproc.http2.frames import frame
from epp.extproc.http2.memory import STREAM_BYTES, Memory
from epp.extproc.http2.streams import STREAM_WINDOW_BYTES
from lab.attack import frames as attacks
from lab.attack.frames import open_stream, send
from tests.epp.extproc.http2.peer import Peer, answers, grpc_message, request, resized, shared_memory, trailers


async def test_partial_messages_stay_within_their_memory() -> None:
    memory, neighbour = shared_memory(8 << 20)
    attacker = Peer(memory=memory)
    for data in islice(attacks.partial_messages(b"a"), 2_000):
        attacker.receive(data)
        assert memory.held_bytes <= 8 << 20
        assert sum(stream.held_bytes for stream in attacker.connection.streams.open.values()) <= memory.held_bytes
    assert set(attacker.floods) == {Flood.MEMORY}
    assert answers(neighbour.send(request(1, b"b" * 300_000))) == [b"b" * 300_000]
    attacker.lose()
    while attacker.connection.streams.open:
        await asyncio.sleep(0)
    assert attacker.book.closed == attacker.book.opened
    assert memory.held_bytes == 0


async def test_partial_messages_leave_no_gaps_in_the_heap() -> None:
    """Large incomplete messages have pages of their own, so the heap does not grow by them."""
    tracemalloc.start()
    try:
        attacker = Peer(memory=Memory(22 << 20))
        for data in islice(attacks.partial_messages(b"a"), 800):
            attacker.receive(data)
            attacker.wire.written.clear()
        in_messages = sum(stream.held_bytes for stream in attacker.connection.streams.open.values())
        assert in_messages > 6 << 20
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


async def test_a_partial_message_occupies_what_has_arrived_of_it() -> None:
    peer = Peer()
    peer.greet()
    announced = [(1, 1_000), (3, 16_000), (5, 70_000), (7, 60 << 20)]
    for n, size in announced:
        peer.send(open_stream(n), send(n, pack(">BI", 0, size) + b"a"))
    assert [peer.connection.streams.open[n].held_bytes for n, _ in announced] == [1_000, 16_000, 65_536, 65_536]
    peer.send(*[send(7, bytes(h2.MAX_FRAME_BYTES))] * 10)
    assert peer.connection.streams.open[7].held_bytes == 10 * h2.MAX_FRAME_BYTES + 1
    assert answers(peer.send(send(3, b"b" * 15_999)), 3) == [b"a" + b"b" * 15_999]


async def test_a_system_without_memory_ends_the_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*arguments: int) -> None:
        raise OSError(ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("epp.extproc.http2.message_stream.mmap", no_memory)
    peer = Peer()
    peer.greet()
    found = peer.send(open_stream(1), send(1, pack(">BI", 0, 70_000) + b"a"))
    assert trailers(found)["grpc-status"] == "8"
    assert answers(peer.send(request(3, b"a" * 20_000)), 3) == [b"a" * 20_000]
    assert peer.book.closed == 2


async def test_what_a_peer_does_not_read_occupies_memory_and_ends_its_connection() -> None:
    memory, neighbour = shared_memory(1 << 20)
    neighbour.send(open_stream(1))
    deaf = Peer(memory=memory)
    deaf.greet()
    deaf.wire.slow = True
    deaf.connection.pause_writing()
    pings = frame(h2.PING, 0, 0, bytes(8)) * 100
    deaf.receive(pings)
    assert memory.held_bytes == STREAM_BYTES + len(deaf.wire.written) == STREAM_BYTES + len(pings)
    deaf.connection.resume_writing()
    assert memory.held_bytes == STREAM_BYTES
    deaf.connection.pause_writing()
    deaf.wire.written += bytes(1 << 20)
    deaf.receive(pings)
    assert (deaf.wire.closed, neighbour.wire.closed, neighbour.book.closed) == (True, False, 0)
    assert (deaf.floods, neighbour.floods) == ([Flood.MEMORY], [])
    deaf.lose()
    assert memory.held_bytes == STREAM_BYTES


async def test_frames_that_wait_for_a_turn_occupy_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1_000_000))
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: next(seconds))
    memory, peer = shared_memory(1 << 20)
    data = frame(h2.PING, 0, 0, bytes(8)) * 100
    peer.connection.data_received(data)
    peer.connection.data_received(data)
    assert memory.held_bytes == 2 * len(data)
    peer.receive(b"")
    assert memory.held_bytes == 0


async def test_a_connection_can_be_made_to_reset_many_streams_at_once() -> None:
    memory, peer = shared_memory(8_000 * STREAM_BYTES)
    peer.send(*[open_stream(n) for n in range(1, 5_700, 2)])
    for _ in range(2):
        assert peer.floods == []
        memory.join(peer.connection).change(2_950 * STREAM_BYTES)
    # Those that are remembered as ended occupy as much as 24 streams.
    assert peer.floods == [Flood.MEMORY] * (750 + 24)


async def test_a_connection_alone_neither_takes_all_memory_nor_closes_the_windows_of_others() -> None:
    memory, neighbour = shared_memory(64 << 20)
    attacker = Peer(memory=memory)
    for data in islice(attacks.partial_messages(b"a"), 3_000):
        attacker.receive(data)
        attacker.wire.written.clear()
    assert set(attacker.floods) == {Flood.MEMORY}
    assert memory.share_limit_bytes - (1 << 20) < memory.held_bytes <= memory.share_limit_bytes
    half = grpc_message(bytes(2_000_000))[:600_000]
    pieces = [half[at : at + h2.MAX_FRAME_BYTES] for at in range(0, len(half), h2.MAX_FRAME_BYTES)]
    for n in (1, 3):
        found = neighbour.send(open_stream(n), *[send(n, piece) for piece in pieces])
        assert (h2.WINDOW_UPDATE, n) in [(kind, stream) for kind, _, stream, _ in found]


async def test_streams_that_do_nothing_occupy_memory_too() -> None:
    memory, neighbour = shared_memory(100 * STREAM_BYTES)
    neighbour.send(open_stream(1))
    attackers = [Peer(memory=memory) for _ in range(3)]
    for attacker in attackers:
        attacker.greet()
        attacker.send(*[open_stream(n) for n in range(1, 200, 2)])
        assert memory.held_bytes <= 100 * STREAM_BYTES
    assert sum(peer.book.opened - peer.book.closed for peer in [neighbour, *attackers]) == 100
    assert neighbour.book.closed == 0
    assert answers(neighbour.send(send(1, grpc_message(b"a")))) == [b"a"]


async def test_unread_answers_occupy_memory_until_they_are_sent() -> None:
    memory, peer = shared_memory(8 << 20)
    peer.send(*resized(0))
    message = b"a" * 900_000
    for n in range(1, 40, 2):
        peer.send(request(n, message))
        assert memory.held_bytes <= 8 << 20
    assert len(peer.floods) >= 10
    found = peer.send(*resized(1 << 20))
    for _ in range(20):
        await asyncio.sleep(0)
    found += peer.take()
    assert len([n for n in range(1, 40, 2) if answers(found, n) == [message]]) == 20 - len(peer.floods)
    assert memory.held_bytes == 0


async def test_large_messages_complete_with_little_memory() -> None:
    memory, peer = shared_memory(32 << 20)
    size, streams = 3_000_000, range(1, 14, 2)
    unsent = {n: grpc_message(bytes([n]) * size) for n in streams}
    windows = dict.fromkeys(streams, STREAM_WINDOW_BYTES)
    found = peer.send(*map(open_stream, streams))
    most_held_back = 0
    while any(unsent.values()):
        sendable = [n for n in streams if unsent[n] and windows[n]]
        assert sendable
        most_held_back = max(most_held_back, len(peer.connection.streams.held_back))
        for n in sendable:
            piece = unsent[n][: min(windows[n], h2.MAX_FRAME_BYTES)]
            unsent[n] = unsent[n][len(piece) :]
            windows[n] -= len(piece)
            found += peer.send(send(n, piece))
            assert memory.held_bytes <= memory.share_limit_bytes
        await asyncio.sleep(0)
        found += peer.take()
        for kind, _, n, payload in found:
            if kind == h2.WINDOW_UPDATE and n:
                windows[n] += int.from_bytes(payload, "big")
        found = [one for one in found if one[0] == h2.DATA]
    assert (most_held_back >= 5, peer.floods) == (True, [])
    assert [answers(found, n) == [bytes([n]) * size] for n in streams] == [True] * len(streams)
    peer.lose()
    while peer.connection.streams.open:
        await asyncio.sleep(0)
    assert memory.held_bytes == 0


async def test_messages_that_wait_occupy_no_more_than_their_bytes() -> None:
    """As objects, messages of two bytes would occupy ten times as much."""
    peer = Peer()
    peer.greet()
    peer.receive(request(1, b"wait", end=False))
    tracemalloc.start()
    try:
        peer.receive(b"".join(send(1, grpc_message(b"ab") * 2_340) for _ in range(10)))
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    held = peer.connection.streams.open[1].held_bytes
    assert 10 * 2_340 * 7 <= held < 230_000
    assert grown < 330_000
    peer.book.released.set()
    while len(peer.book.received) <= 10 * 2_340:
        await asyncio.sleep(0)
    assert set(peer.book.received[1:]) == {b"ab"}
