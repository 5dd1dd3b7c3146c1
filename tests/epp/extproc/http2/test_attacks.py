"""Bound the cost of an attacker's frames in counts: frames handled, streams opened and visited, bytes held."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from struct import pack
from typing import Any

import grpc.aio
import pytest

from epp.extproc.front import PATH, FrontSettings, start
from epp.extproc.health import Health
from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import ControlFrameBudget, Flood
from epp.extproc.http2.floods import FloodReport
from epp.extproc.http2.frames import ErrorCode, frame
from epp.extproc.http2.outbox import Outbox
from epp.extproc.http2.rota import Rota
from epp.extproc.rpc import RpcClient
from lab.attack import frames as attacks
from lab.attack.frames import Attack, open_stream, send
from tests.epp.extproc.exchanges import Book, Echo
from tests.epp.extproc.http2.peer import (
    Peer,
    answers,
    fault,
    grpc_message,
    read_all,
    request,
    resized,
    shared_memory,
)

# A step of the attacks on streams holds a hundred of them. A server that endures them endures all.
STEPS = 60
# What an attack may cost in one turn of the event loop: half a millisecond by the test's clock, and as many messages as
# one stream may send at once beside one of each frame.
FRAMES_OF_A_TURN = 9
MESSAGES_OF_A_TURN = FRAMES_OF_A_TURN + 32
LIMIT_BYTES = 8 << 20
# What uvloop reads at once.
READ_BYTES = 256_000
CUT_OFF = ("connection", ErrorCode.ENHANCE_YOUR_CALM)


async def next_round() -> None:
    """Let unfinished work have its next turn."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def run(attack: Attack, steps: int, peer: Peer) -> int:
    """Send the attack until the server cuts it off or its steps are done, and return the number of steps sent."""
    for step, data in enumerate(islice(attack(b"a"), steps)):
        peer.receive(data)
        if peer.wire.closed:
            return step
    return steps


@pytest.mark.parametrize(
    ("attack", "steps", "streams", "kind"),
    [
        (attacks.rapid_reset, 12, 1_100, Flood.RST_STREAM),
        (attacks.rapid_reset_with_empty_messages, 6, 550, Flood.EMPTY_MESSAGE),
        (attacks.made_you_reset, 6, 550, Flood.EMPTY_MESSAGE),
        (attacks.unknown_methods, 12, 0, Flood.UNSERVED_REQUEST),
        (attacks.ping_with_empty_messages, 3, 1, Flood.PING),
        (attacks.settings_with_empty_messages, 3, 1, Flood.SETTINGS),
        (attacks.settings_resize, 1, attacks.STREAMS, Flood.SETTINGS),
        (attacks.empty_data, 4, 300, Flood.ENDED_STREAM),
        (attacks.faulty_messages, 12, 1_100, Flood.FAULTY_MESSAGE),
        (attacks.huffman_flood, 150, 150, Flood.LARGE_HEADERS),
        (attacks.tiny_messages, 3, 1, Flood.EMPTY_MESSAGE),
    ],
)
async def test_a_flood_is_cut_off_and_reported(
    attack: Attack, steps: int, streams: int, kind: Flood, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a slow machine, the budget would refill meanwhile.
    monkeypatch.setattr("epp.extproc.http2.budget.monotonic", lambda: 0.0)
    peer = Peer()
    assert run(attack, STEPS * 5, peer) <= steps
    assert peer.wire.closed
    assert fault(peer.take()) == CUT_OFF
    while peer.book.closed < peer.book.opened:
        before = peer.book.closed
        await next_round()
        assert peer.book.closed > before
    assert peer.book.closed == peer.book.opened <= streams
    assert peer.floods == [kind]


@pytest.mark.parametrize("attack", attacks.ATTACKS.values(), ids=list(attacks.ATTACKS))
async def test_a_neighbour_has_its_turn_after_little_work_of_any_attack(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each frame takes a tenth of a millisecond."""
    monkeypatch.setattr(attacks, "STREAMS", 500)
    clock = count()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: next(clock) / 10_000)
    memory, neighbour = shared_memory(LIMIT_BYTES)
    attacker = Peer(memory=memory)
    stream_ids = count(1, 2)
    for number, turn in enumerate(turns(attack, attacker)):
        frames, messages = next(clock), len(attacker.book.received)
        turn()
        assert next(clock) - frames <= FRAMES_OF_A_TURN
        assert len(attacker.book.received) - messages <= MESSAGES_OF_A_TURN
        assert memory.held_bytes <= LIMIT_BYTES
        if number % 10 == 0:
            n = next(stream_ids)
            assert answers(neighbour.send(request(n, b"b")), n) == [b"b"]
    assert (neighbour.floods, neighbour.wire.closed) == ([], False)


def turns(attack: Attack, peer: Peer) -> Iterator[Callable[[], None]]:
    """Yield what the event loop calls in turn while the attack's first steps arrive."""
    for data in islice(attack(b"a"), 3):
        for at in range(0, len(data), READ_BYTES):
            yield partial(peer.connection.data_received, data[at : at + READ_BYTES])
            while peer.connection.turns.unfinished and not peer.wire.closed:
                yield peer.connection.turns.take
            if peer.wire.closed:
                return
            peer.wire.written.clear()


def test_each_kind_of_flood_is_counted_and_logged_at_most_every_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("epp.extproc.http2.floods.monotonic", lambda: now)
    counted: list[str] = []
    report = FloodReport(counted.append)
    for kind in (Flood.PING, Flood.PING, Flood.PING, Flood.SETTINGS):
        report.add(kind, "192.0.2.1:5")
    now = 111.0
    report.add(Flood.PING, "192.0.2.2:6")
    assert counted == ["ping", "ping", "ping", "settings", "ping"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "closed the connection from 192.0.2.1:5: it sent a flood of ping"),
        ("WARNING", "closed the connection from 192.0.2.1:5: it sent a flood of settings"),
        (
            "WARNING",
            "closed the connection from 192.0.2.2:6: it sent a flood of ping; 2 others since the last line about this",
        ),
    ]


async def test_a_neighbour_is_served_while_a_flood_is_cut_off() -> None:
    counted: list[str] = []
    settings = FrontSettings(host="127.0.0.1", port=0, health_port=None, certificates=None, health_checking=False)
    front = await start(settings, Book().new_exchange, Health(()), counted.append)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            neighbour = channel.stream_stream(PATH)()
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            for data in islice(attacks.rapid_reset(b"a"), STEPS):
                writer.write(data)
                await neighbour.write(b"b")
                assert await neighbour.read() == b"b"
            assert read_all(await reader.read())[-1][0] == h2.GOAWAY
            writer.close()
    finally:
        await front.stop(0)
    assert counted == [Flood.RST_STREAM]


async def test_a_decompression_bomb_in_headers_ends_the_connection() -> None:
    peer = Peer()
    assert run(attacks.hpack_bomb, STEPS, peer) <= 2
    assert fault(peer.take()) == ("connection", ErrorCode.COMPRESSION_ERROR)


async def test_a_settings_frame_resizes_the_windows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0

    def counted(self: Outbox, *arguments: Any) -> None:
        nonlocal passes
        passes += 1
        resize(self, *arguments)

    resize = Outbox.resize_windows
    monkeypatch.setattr(Outbox, "resize_windows", counted)
    peer = Peer()
    peer.greet()
    sizes = [1_000, 70_000, 3, 5]
    payload = b"".join(pack(">HI", h2.Setting.INITIAL_WINDOW_SIZE, size) for size in sizes)
    peer.send(frame(h2.SETTINGS, 0, 0, payload))
    assert passes == 1
    found = peer.send(request(1, b"twelve bytes"))
    assert sum(len(data) for kind, _, _, data in found if kind == h2.DATA) == sizes[-1]


async def test_every_window_size_in_a_settings_frame_is_checked_for_overflow() -> None:
    peer = Peer()
    peer.greet()
    peer.send(open_stream(1), h2.window_update(1, 2**31 - 70_000))
    payload = b"".join(pack(">HI", h2.Setting.INITIAL_WINDOW_SIZE, size) for size in (70_001, 1))
    found = peer.send(frame(h2.SETTINGS, 0, 0, payload))
    assert fault(found) == ("connection", ErrorCode.FLOW_CONTROL_ERROR)


async def test_streams_behind_closed_windows_cost_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def counted(self: Outbox, *arguments: Any) -> int:
        nonlocal looks
        looks += 1
        return send_some(self, *arguments)

    send_some = Outbox._send_some
    monkeypatch.setattr(Outbox, "_send_some", counted)
    monkeypatch.setattr(attacks, "STREAMS", 2_000)
    peer = Peer()
    run(attacks.zero_window_drip, 1, peer)
    peer.take()
    looks = 0
    run(lambda message: islice(attacks.zero_window_drip(message), 1, None), STEPS, peer)
    assert looks == 0
    assert answers(peer.send(h2.window_update(3, 1_024)), 3) == [b"a"]
    assert looks == 1


async def test_a_stream_with_a_negative_window_is_sent_when_it_opens() -> None:
    peer = Peer()
    peer.greet(initial_window_size=100)
    peer.send(request(1, bytes(1_000)), h2.window_update(0, 1))
    assert not [one for one in peer.send(h2.window_update(1, 50), *resized(0)) if one[0] == h2.DATA and not one[3]]
    found = peer.send(h2.window_update(1, 5_000))
    assert sum(len(data) for kind, _, _, data in found if kind == h2.DATA) >= 1_000 - 150


async def test_requests_restore_the_budget_for_their_own_frames() -> None:
    """A gateway's clients give up before the picker has answered, or before their body has ended."""
    peer = Peer()
    peer.greet()
    for n in range(1, 6_001, 2):
        first = b"none" if n % 4 == 1 else b"wait"
        peer.send(
            request(n, first, end=False),
            h2.rst_stream(n, ErrorCode.CANCEL),
            frame(h2.PING, 0, 0, bytes(8)),
            h2.window_update(0, 6),
        )
    assert not peer.wire.closed
    assert peer.book.opened == 3_000


async def test_large_data_on_its_way_to_an_ended_stream_costs_little() -> None:
    """When the server refuses large bodies, a whole window of each stream may be under way."""
    peer = Peer()
    peer.greet()
    for n in range(1, 361, 2):
        peer.send(open_stream(n), send(n, grpc_message(b"junk")))
        peer.send(*[send(n, bytes(h2.MAX_FRAME_BYTES))] * 64)
    assert not peer.wire.closed


async def test_many_messages_take_turns_with_other_streams() -> None:
    peer = Peer()
    peer.greet()
    messages = [b"%d" % n for n in range(1_000)]
    peer.connection.data_received(request(1, *messages) + request(3, b"neighbour"))
    assert len(peer.book.received) < 100
    assert peer.book.received[-1] == b"neighbour"
    peer.receive(b"")
    found = peer.take()
    assert (answers(found), answers(found, 3)) == (messages, [b"neighbour"])
    assert peer.book.closed == 2


async def test_empty_messages_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame of 3,276 empty messages would take as long as a turn, whatever the clock says."""
    charges = []
    monkeypatch.setattr(ControlFrameBudget, "spend", lambda self, kind, cost=1.0: charges.append(cost))
    peer = Peer()
    opening, messages = islice(attacks.tiny_messages(b"a"), 2)
    peer.receive(opening)
    charges.clear()
    peer.connection.data_received(messages * 2)
    turns = 1
    while peer.connection.turns.unfinished:
        assert len(peer.book.received) <= turns * 32
        peer.connection.turns.take()
        turns += 1
    assert len(peer.book.received) == 2 * (h2.MAX_FRAME_BYTES // 5)


async def test_empty_messages_are_paid_for_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    charges = []
    monkeypatch.setattr(ControlFrameBudget, "spend", lambda self, kind, cost=1.0: charges.append((kind, cost)))
    peer = Peer()
    peer.greet()
    charges.clear()
    none, some = grpc_message(b""), grpc_message(b"\0" * 20)
    peer.send(open_stream(1), send(1, none * 7 + some + none + some + none * 2 + none[:4]))
    assert charges == [(Flood.EMPTY_MESSAGE, 7), (Flood.EMPTY_MESSAGE, 1), (Flood.EMPTY_MESSAGE, 2)]
    peer.send(send(1, none[4:] + some))
    assert charges[3:] == [(Flood.EMPTY_MESSAGE, 1)]
    assert [len(message) for message in peer.book.received] == [0] * 7 + [20, 0, 20, 0, 0, 0, 20]


async def test_a_peer_that_sends_on_after_it_was_cut_off_is_disconnected() -> None:
    peer = Peer()
    aborted = []
    peer.wire.abort = lambda: aborted.append(True)  # type: ignore[method-assign]
    peer.receive(b"no preface")
    peer.connection.data_received(bytes(1 << 20))
    assert (peer.wire.closed, aborted) == (True, [])
    peer.connection.data_received(b"more")
    assert aborted == [True]


async def test_a_connection_that_is_cut_off_while_reading_pauses_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its end would go unnoticed, and ended connections would gather."""
    milliseconds = count()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: next(milliseconds) / 1_000)
    peer = Peer()
    reading = []
    monkeypatch.setattr(peer.wire, "pause_reading", lambda: reading.append(False))
    monkeypatch.setattr(peer.wire, "resume_reading", lambda: reading.append(True))
    run(attacks.rapid_reset, STEPS, peer)
    assert (peer.wire.closed, reading[-2:]) == (True, [False, True])


async def test_a_turn_of_the_event_loop_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: next(ticks) / 10_000)
    peer = Peer(Book())
    peer.greet()
    reading = []
    monkeypatch.setattr(peer.wire, "pause_reading", lambda: reading.append(False))
    monkeypatch.setattr(peer.wire, "resume_reading", lambda: reading.append(True))
    for _ in range(10):
        next(ticks)
    peer.connection.data_received(b"".join(request(n, b"a") for n in range(1, 100, 2)))
    assert 1 <= len(peer.book.received) <= 5
    assert reading == [False]
    peer.receive(request(101, b"last"))
    assert peer.book.received == [b"a"] * 50 + [b"last"]
    assert reading == [False, True]


async def test_the_streams_of_a_lost_connection_end_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: next(ticks) / 10_000)
    peer = Peer()
    peer.greet()
    peer.send(*[open_stream(n) for n in range(1, 100, 2)])
    peer.lose()
    closed = [0]
    while peer.book.closed < peer.book.opened:
        assert 1 <= peer.book.closed - closed[-1] <= FRAMES_OF_A_TURN
        closed.append(peer.book.closed)
        await next_round()
    assert len(closed) > 5


async def test_many_connections_with_unfinished_work_take_no_more_time_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = count()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: next(ticks) / 10_000)
    monkeypatch.setattr("epp.extproc.http2.rota.monotonic", lambda: next(ticks) / 10_000)
    book, rota = Book(), Rota()
    attackers = [Peer(book, rota=rota) for _ in range(20)]
    for attacker in attackers:
        attacker.greet()
        attacker.connection.data_received(b"".join(request(n, b"a") for n in range(1, 100, 2)))
        assert attacker.connection.turns.unfinished
    handled = []
    while any(attacker.connection.turns.unfinished for attacker in attackers):
        before = len(book.received)
        await next_round()
        handled.append(len(book.received) - before)
    assert len(book.received) == 20 * 50
    assert max(handled) <= FRAMES_OF_A_TURN


async def test_a_connection_that_looks_like_a_flood_pauses_between_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: next(ticks) / 10_000)
    honest, flood = Peer(), Peer()
    for peer in (honest, flood):
        peer.greet()
    pauses: list[float] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda pause_s, *_: pauses.append(pause_s))
    honest.receive(b"".join(request(n, b"a") for n in range(1, 300, 2)))
    assert pauses == []
    flood.receive(frame(h2.PING, 0, 0, bytes(8)) * 300)
    assert len(pauses) > 20


async def test_reads_of_one_turn_of_the_event_loop_share_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [1.0]

    class Slow(Book):
        def new_exchange(self, client: RpcClient) -> Echo:
            clock_s[0] += 0.0002
            return super().new_exchange(client)

    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: clock_s[0])
    peer = Peer(Slow())
    peer.greet()
    clock_s[0] += 1
    unfinished = []
    for n in (1, 3, 5):
        peer.connection.data_received(open_stream(n))
        unfinished.append(peer.connection.turns.unfinished)
    assert unfinished == [False, False, True]
