"""Test the HTTP/2 connection of the picker's own front with right and wrong frames."""

import asyncio
from collections.abc import Awaitable
from itertools import pairwise
from struct import pack

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import ControlFrameBudget, Flood
from epp.extproc.http2.delay import DELAY_PING
from epp.extproc.http2.frames import ErrorCode, FrameReader, frame
from epp.extproc.http2.headers import MAX_BLOCK_BYTES, read_headers, write_headers
from epp.extproc.http2.receiver import CONNECTION_WINDOW_BYTES
from epp.extproc.http2.streams import STREAM_WINDOW_BYTES
from epp.extproc.rpc import Message, RpcClient
from epp.request.overload import Level, Overload
from epp.request.overload_by_client import OverloadByClient
from tests.epp.extproc.exchanges import COMMANDS, Book, Echo
from tests.epp.extproc.http2.peer import (
    REQUEST,
    REQUEST_BLOCK,
    Peer,
    answers,
    fault,
    grpc_message,
    open_stream,
    request,
    trailers,
)

STREAM, CONNECTION = "stream", "connection"
PADDED = h2.PADDED | h2.END_HEADERS
PRIORITY = pack(">IB", 0, 15)


@pytest.fixture
async def peer() -> Peer:
    peer = Peer()
    peer.greet()
    return peer


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


places = st.lists(st.integers(0, 10_000), max_size=12)
# Hypothesis tries the constants that it finds in the code, and so the commands.
echoed = st.binary(max_size=40).filter(lambda message: not message.startswith(COMMANDS))
payloads = st.lists(st.binary(max_size=300), max_size=6)


@given(payloads, places)
def test_frames_are_read_from_pieces_of_any_size(contents: list[bytes], where: list[int]) -> None:
    data = h2.PREFACE + b"".join(frame(n, n, n, content) for n, content in enumerate(contents))
    reader = FrameReader()
    read = [
        (kind, flags, stream, buffer[start:end])
        for piece in cut(data, where)
        for kind, flags, stream, buffer, start, end in reader.read(piece)
    ]
    assert read == [(n, n, n, content) for n, content in enumerate(contents)]


@given(st.lists(echoed, max_size=8), places, places)
async def test_messages_are_read_from_frames_and_pieces_of_any_size(
    messages: list[bytes], frame_cuts: list[int], byte_cuts: list[int]
) -> None:
    data = b"".join(map(grpc_message, messages))
    frames = [frame(h2.DATA, 0, 1, piece) for piece in cut(data, frame_cuts)] + [frame(h2.DATA, h2.END_STREAM, 1, b"")]
    peer = Peer()
    peer.greet()
    found = [one for piece in cut(open_stream(1) + b"".join(frames), byte_cuts) for one in peer.send_bytes(piece)]
    assert peer.book.received == messages
    assert answers(found) == messages
    assert trailers(found)["grpc-status"] == "0"
    assert peer.book.closed == 1


@given(
    st.lists(st.integers(0, 3_000), min_size=1, max_size=6),
    st.integers(0, 5_000),
    st.lists(st.tuples(st.sampled_from(["stream", "connection", "initial"]), st.integers(1, 4_000)), max_size=20),
)
async def test_no_more_is_sent_than_the_windows_allow(
    sizes: list[int], initial: int, grants: list[tuple[str, int]]
) -> None:
    peer = Peer()
    peer.greet(initial_window_size=initial)
    messages = [bytes([n]) * size for n, size in enumerate(sizes)]
    stream_window, connection_window = initial, h2.DEFAULT_WINDOW_BYTES
    found = peer.send(request(1, *messages))
    sent = 0
    for where, amount in [*grants, ("stream", 1_000_000)]:
        before, sent = sent, sum(len(payload) for kind, _, _, payload in found if kind == h2.DATA)
        assert sent <= max(before, min(stream_window, connection_window))
        if where == "initial":
            stream_window += amount - initial
            initial = amount
            found += peer.send(h2.settings_frame({h2.Setting.INITIAL_WINDOW_SIZE: amount}))
        elif where == "stream":
            stream_window += amount
            found += peer.send(h2.window_update(1, amount))
        else:
            connection_window += amount
            found += peer.send(h2.window_update(0, amount))
    assert answers(found) == messages
    assert trailers(found)["grpc-status"] == "0"
    assert peer.book.closed == 1


valid = st.one_of(
    st.builds(request, st.integers(0, 6).map(lambda n: 2 * n + 1), st.binary(max_size=9), end=st.booleans()),
    st.builds(h2.window_update, st.integers(0, 13), st.integers(0, 2**31 - 1)),
    st.builds(h2.rst_stream, st.integers(0, 13), st.sampled_from(ErrorCode)),
    st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.integers(0, 13), st.binary(max_size=60)),
    st.binary(max_size=60),
)


@settings(max_examples=300)
@given(st.lists(valid, max_size=10), st.booleans())
async def test_no_input_breaks_the_server_or_leaks_an_exchange(inputs: list[bytes], lost: bool) -> None:
    peer = Peer()
    peer.greet()
    for data in inputs:
        for kind, *_, payload in peer.send_bytes(data):
            if kind == h2.GOAWAY:
                assert int.from_bytes(payload[4:8], "big") != ErrorCode.INTERNAL_ERROR
    if lost:
        peer.lose()
    else:
        peer.connection.abort()
    while peer.connection.streams.open:
        await asyncio.sleep(0)
    assert peer.book.closed == peer.book.opened


async def test_all_answers_of_one_turn_go_out_in_one_write(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(peer.wire, "write", writes.append)
    peer.send(request(1, b"a", b"b"), request(3, b"c"))
    assert len(writes) == 1


async def test_padding_and_priority_are_ignored(peer: Peer) -> None:
    found = peer.send(
        frame(h2.PRIORITY, 0, 1, pack(">IB", 3, 15)),
        frame(h2.HEADERS, PADDED | h2.WITH_PRIORITY, 1, b"\x03" + PRIORITY + REQUEST_BLOCK + bytes(3)),
        frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, b"\x02" + grpc_message(b"a") + bytes(2)),
    )
    assert answers(found) == [b"a"]


async def test_a_header_block_may_continue_in_further_frames(peer: Peer) -> None:
    found = peer.send(
        open_stream(1, REQUEST_BLOCK[:10], flags=h2.END_STREAM),
        frame(h2.CONTINUATION, 0, 1, REQUEST_BLOCK[10:20]),
        frame(h2.CONTINUATION, h2.END_HEADERS, 1, REQUEST_BLOCK[20:]),
    )
    assert trailers(found)["grpc-status"] == "0"


async def test_headers_may_use_the_dynamic_table(peer: Peer) -> None:
    encoder = Encoder()
    blocks = [encoder.encode([*REQUEST, ("x", "y")]) for _ in range(3)]
    assert len(blocks[1]) < len(blocks[0])
    found = peer.send(*(open_stream(2 * n + 1, block) for n, block in enumerate(blocks)))
    assert (found, peer.book.opened) == ([], 3)


async def test_equal_blocks_without_a_table_mean_equal_headers(peer: Peer) -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    blocks = [encoder.encode([*REQUEST, ("x", x)]) for x in "aabbaabb"]
    assert peer.send(*(open_stream(2 * n + 1, block) for n, block in enumerate(blocks))) == []
    other = encoder.encode([*REQUEST[:2], (":path", "/other"), *REQUEST[3:]])
    assert trailers(peer.send(open_stream(101, other), open_stream(103, other))[:1], 101)["grpc-status"] == "12"
    assert peer.book.opened == len(blocks)


async def test_pings_and_settings_are_acknowledged(peer: Peer) -> None:
    assert peer.send(frame(h2.PING, 0, 0, b"12345678"), h2.settings_frame({})) == [
        (h2.PING, h2.ACK, 0, b"12345678"),
        (h2.SETTINGS, h2.ACK, 0, b""),
    ]


async def test_windows_are_reopened_as_data_arrives(peer: Peer) -> None:
    data = grpc_message(bytes(20 * STREAM_WINDOW_BYTES))
    found = peer.send(open_stream(1))
    for start in range(0, len(data), h2.MAX_FRAME_BYTES):
        found += peer.send(frame(h2.DATA, 0, 1, data[start : start + h2.MAX_FRAME_BYTES]))
    assert len(peer.book.received[0]) == 20 * STREAM_WINDOW_BYTES
    grants = [
        sum(int.from_bytes(payload, "big") for kind, _, where, payload in found if (kind, where) == (8, stream))
        for stream in (0, 1)
    ]
    assert grants[0] >= len(data) - CONNECTION_WINDOW_BYTES // 2
    assert grants[1] >= len(data) - STREAM_WINDOW_BYTES // 2


async def test_a_waiting_stream_accepts_no_more_than_a_window(peer: Peer) -> None:
    found = peer.send(request(1, b"wait", end=False))
    message = frame(h2.DATA, 0, 1, grpc_message(bytes(10_000)))
    for _ in range(STREAM_WINDOW_BYTES // len(message)):
        found += peer.send(message)
    assert not [one for one in found if one[0] == h2.WINDOW_UPDATE]
    assert fault(peer.send(*[message] * 2)) == (STREAM, ErrorCode.FLOW_CONTROL_ERROR)
    await settled(peer)
    assert peer.book.closed == 1


async def test_messages_behind_a_waiting_one_keep_their_order(peer: Peer) -> None:
    assert peer.send(request(1, b"a", b"wait", b"b", b"later", b"c"), request(3, b"d"))[-1][2] == 3
    peer.book.released.set()
    await settled(peer)
    assert answers(peer.take()) == [b"wait", b"b", b"later", b"c"]
    assert peer.book.closed == 2


async def settled(peer: Peer) -> None:
    """Let all tasks that can finish run to their end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_large_answers_take_turns(peer: Peer) -> None:
    peer.send(h2.window_update(0, 1_000_000), h2.settings_frame({h2.Setting.INITIAL_WINDOW_SIZE: 0}))
    peer.send(request(1, bytes(100_000)), request(3, b"small"))
    found = peer.send(h2.settings_frame({h2.Setting.INITIAL_WINDOW_SIZE: 1_000_000}))
    streams = [stream for kind, _, stream, _ in found if kind == h2.DATA]
    assert streams[:3] == [1, 3, 1]
    assert answers(found, 3) == [b"small"]


async def test_a_slow_transport_is_not_overfilled(peer: Peer) -> None:
    peer.send(h2.window_update(0, 100_000_000), h2.settings_frame({h2.Setting.INITIAL_WINDOW_SIZE: 100_000_000}))
    peer.connection.pause_writing()
    assert not [one for one in peer.send(request(1, b"x" * 10_000)) if one[0] == h2.DATA]
    peer.connection.resume_writing()
    assert answers(peer.take()) == [b"x" * 10_000]


async def test_a_peer_that_sends_requests_and_does_not_read_is_disconnected(peer: Peer) -> None:
    peer.wire.slow = True
    peer.connection.pause_writing()
    refused = open_stream(1, write_headers([*REQUEST[:2], (":path", "/" + "x" * 8_000), *REQUEST[3:]]))
    for n in range(2_000):
        peer.receive(refused[:5] + pack(">I", 2 * n + 1) + refused[9:])
        peer.receive(frame(h2.DATA, h2.END_STREAM, 2 * n + 1, b""))
        if peer.wire.closed:
            break
    assert peer.wire.closed
    assert len(peer.wire.written) < 10_000_000


async def test_a_peer_that_reads_none_of_its_answers_is_disconnected(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epp.extproc.http2.outbox._UNREAD_BYTES", 10_000)
    peer.wire.slow = True
    peer.connection.pause_writing()
    for n in range(200):
        peer.receive(request(2 * n + 1, b"a"))
        if peer.wire.closed:
            break
    assert peer.wire.closed
    assert (len(peer.wire.written) < 11_000, peer.floods) == (True, [])


@pytest.mark.parametrize(
    ("frames", "ends", "code"),
    [
        ([frame(h2.DATA, 0, 3, b"")], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.DATA, 0, 0, b"")], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.DATA, h2.PADDED, 1, b"\x05abc")], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.DATA, h2.PADDED, 1, b"")], CONNECTION, ErrorCode.FRAME_SIZE_ERROR),
        ([frame(h2.DATA, 0, 1, bytes(h2.MAX_FRAME_BYTES + 1))], CONNECTION, ErrorCode.FRAME_SIZE_ERROR),
        ([frame(h2.DATA, h2.END_STREAM, 1, b"\0")] * 2, STREAM, ErrorCode.STREAM_CLOSED),
        ([open_stream(2)], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([open_stream(5), h2.rst_stream(5, ErrorCode.CANCEL), open_stream(3)], CONNECTION, ErrorCode.STREAM_CLOSED),
        ([open_stream(3, b"\xff\xff\xff")], CONNECTION, ErrorCode.COMPRESSION_ERROR),
        ([open_stream(3, b"\x3f\xe1\x1f")], CONNECTION, ErrorCode.COMPRESSION_ERROR),
        ([open_stream(3, pack(">IB", 3, 0), h2.WITH_PRIORITY)], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([open_stream(3, flags=0), frame(h2.PING, 0, 0, bytes(8))], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.CONTINUATION, 0, 1, b"")], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([open_stream(3, flags=0), *[frame(9, 0, 3, bytes(16_000))] * 5], CONNECTION, ErrorCode.ENHANCE_YOUR_CALM),
        ([open_stream(1)], STREAM, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.PUSH_PROMISE, 4, 1, bytes(4))], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.PING, 0, 1, bytes(8))], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.PING, 0, 0, bytes(7))], CONNECTION, ErrorCode.FRAME_SIZE_ERROR),
        ([frame(h2.GOAWAY, 0, 1, bytes(8))], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.RST_STREAM, 0, 1, bytes(3))], CONNECTION, ErrorCode.FRAME_SIZE_ERROR),
        ([h2.rst_stream(7, ErrorCode.CANCEL)], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.PRIORITY, 0, 1, bytes(4))], STREAM, ErrorCode.FRAME_SIZE_ERROR),
        ([h2.window_update(7, 1)], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([h2.window_update(1, 0)], STREAM, ErrorCode.PROTOCOL_ERROR),
        ([h2.window_update(0, 0)], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([h2.window_update(1, 2**31 - 1)], STREAM, ErrorCode.FLOW_CONTROL_ERROR),
        ([h2.window_update(0, 2**31 - 1)], CONNECTION, ErrorCode.FLOW_CONTROL_ERROR),
        ([h2.window_update(1, 2**31 - 70_000), h2.settings_frame({h2.Setting.INITIAL_WINDOW_SIZE: 70_001})],
         CONNECTION, ErrorCode.FLOW_CONTROL_ERROR),
        ([h2.settings_frame({h2.Setting.INITIAL_WINDOW_SIZE: 2**31})], CONNECTION, ErrorCode.FLOW_CONTROL_ERROR),
        ([h2.settings_frame({h2.Setting.MAX_FRAME_SIZE: 100})], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([h2.settings_frame({h2.Setting.ENABLE_PUSH: 2})], CONNECTION, ErrorCode.PROTOCOL_ERROR),
        ([frame(h2.SETTINGS, 0, 0, bytes(5))], CONNECTION, ErrorCode.FRAME_SIZE_ERROR),
        ([frame(h2.SETTINGS, h2.ACK, 0, bytes(6))], CONNECTION, ErrorCode.FRAME_SIZE_ERROR),
        ([frame(h2.SETTINGS, 0, 1, b"")], CONNECTION, ErrorCode.PROTOCOL_ERROR),
    ],
)  # fmt: skip
async def test_a_protocol_error_ends_the_stream_or_the_connection(
    peer: Peer, frames: list[bytes], ends: str, code: ErrorCode
) -> None:
    peer.send(open_stream(1))
    assert fault(peer.send(*frames)) == (ends, code)
    assert peer.wire.closed == (ends == CONNECTION)
    if ends == CONNECTION:
        assert peer.book.closed == peer.book.opened


@pytest.mark.parametrize(
    "headers",
    [
        [*REQUEST, ("Upper", "x")],
        [*REQUEST, (":late", "x")],
        [*REQUEST, ("te", "gzip")],
        [*REQUEST, ("connection", "close")],
        [*REQUEST, ("content-length", "7")],
        [REQUEST[0], *REQUEST],
        REQUEST[1:],
        [("te", "trailers"), *REQUEST],
    ],
)
async def test_a_malformed_request_ends_its_stream(peer: Peer, headers: list[tuple[str, str]]) -> None:
    found = peer.send(open_stream(1, write_headers(headers)), frame(h2.DATA, h2.END_STREAM, 1, grpc_message(b"")))
    assert (STREAM, ErrorCode.PROTOCOL_ERROR) in [fault([one]) for one in found]
    assert answers(peer.send(request(3, b"a")), 3) == [b"a"]


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", h2.PREFACE + frame(h2.PING, 0, 0, bytes(8))]
)
async def test_another_protocol_gets_goaway(start: bytes) -> None:
    peer = Peer()
    assert fault(peer.send_bytes(start)) == (CONNECTION, ErrorCode.PROTOCOL_ERROR)
    assert peer.wire.closed


@pytest.mark.parametrize(
    "annoyance",
    [
        frame(h2.PING, 0, 0, bytes(8)),
        h2.settings_frame({}),
        frame(h2.PRIORITY, 0, 1, PRIORITY),
        frame(0x20, 0, 0, b""),
        frame(h2.DATA, 0, 1, b""),
        h2.window_update(0, 1),
    ],
)
async def test_a_flood_without_requests_ends_the_connection(peer: Peer, annoyance: bytes) -> None:
    peer.send(open_stream(1))
    peer.send(*[annoyance] * int(ControlFrameBudget.BURST - 10))
    peer.send(frame(h2.DATA, 0, 1, grpc_message(b"a message")))
    assert not peer.wire.closed
    assert fault(peer.send(*[annoyance] * int(ControlFrameBudget.BURST * 2))) == (
        CONNECTION,
        ErrorCode.ENHANCE_YOUR_CALM,
    )
    assert peer.book.closed == 1


async def test_resetting_unused_streams_ends_the_connection(peer: Peer) -> None:
    flood = [open_stream(n) + h2.rst_stream(n, ErrorCode.CANCEL) for n in range(1, 6_001, 2)]
    assert fault(peer.send(*flood)) == (CONNECTION, ErrorCode.ENHANCE_YOUR_CALM)
    assert peer.book.closed == peer.book.opened < 3_000


async def test_resetting_used_streams_is_allowed(peer: Peer) -> None:
    """Gateways reset a stream once they have its answer."""
    for n in range(1, 6_001, 2):
        peer.send(request(n, b"a", end=False), h2.rst_stream(n, ErrorCode.CANCEL), h2.window_update(0, 6))
    assert not peer.wire.closed
    assert peer.book.closed == peer.book.opened == 3_000


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("x", "y")], {":status": "415"}),
        ([("content-type", "application/grpc-web")], {":status": "415"}),
        ([("content-type", "application/grpc+proto")], {":status": "200", "grpc-status": "0"}),
    ],
)
async def test_only_grpc_is_served(peer: Peer, headers: list[tuple[str, str]], expected: dict[str, str]) -> None:
    found = peer.send(open_stream(1, write_headers([*REQUEST[:3], *headers]), h2.END_HEADERS | h2.END_STREAM))
    assert expected.items() <= trailers(found).items()


async def test_a_get_request_is_refused(peer: Peer) -> None:
    found = peer.send(open_stream(1, write_headers([(":method", "GET"), *REQUEST[1:]])))
    assert trailers(found[:1])[":status"] == "405"
    assert fault(found) == (STREAM, ErrorCode.NO_ERROR)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x01\0\0\0\x01x", "12"),
        (b"\0\0\0\0\x09x", "13"),
        (b"\0\0", "13"),
        (pack(">BI", 0, 1_001), "8"),
        (grpc_message(b"junk"), "3"),
        (grpc_message(b"fail"), "13"),
    ],
)
async def test_an_unacceptable_message_ends_the_stream(data: bytes, status: str) -> None:
    peer = Peer(max_message_bytes=1_000)
    peer.greet()
    found = peer.send(open_stream(1), frame(h2.DATA, h2.END_STREAM, 1, grpc_message(b"a") + data + data))
    ended = trailers(found)
    assert (answers(found), ended["grpc-status"]) == ([b"a"], status)
    assert ended["grpc-message"]
    assert peer.book.closed == 1


async def test_the_refusal_of_a_compressed_message_names_the_accepted_encoding(peer: Peer) -> None:
    ended = trailers(peer.send(open_stream(1), frame(h2.DATA, 0, 1, b"\x01\0\0\0\x01x")))
    assert (ended["grpc-status"], ended["grpc-accept-encoding"]) == ("12", "identity")


@pytest.mark.parametrize(
    ("text", "timeout_s"),
    [
        ("2S", 2.0),
        ("99999999n", 0.099999999),
        ("1H", 3_600.0),
        ("0u", 0.0),
        ("100000000S", None),
        ("2", None),
        ("S", None),
        ("", None),
        ("\u0662S", None),
        ("-2S", None),
        ("2s", None),
    ],
)
def test_a_timeout_is_read_as_grpc_writes_it(text: str, timeout_s: float | None) -> None:
    assert read_headers([*REQUEST, ("grpc-timeout", text)]).timeout_s == timeout_s
    assert read_headers(REQUEST).timeout_s is None


async def test_frames_after_the_end_of_a_stream_are_ignored(peer: Peer) -> None:
    peer.send(request(1, b"junk", end=False))
    assert peer.send(frame(h2.DATA, 0, 1, grpc_message(b"a")), h2.window_update(1, 9), open_stream(1)) == []
    assert peer.book.received == [b"junk"]


async def test_a_failed_exchange_ends_its_stream_alone() -> None:
    class Full(Book):
        def new_exchange(self, client):  # type: ignore[no-untyped-def]
            raise ValueError("no exchange")

    peer = Peer(Full())
    peer.greet()
    assert trailers(peer.send(request(1, b"a"))[:1])["grpc-status"] == "13"
    assert not peer.wire.closed


async def test_draining_accepts_streams_already_under_way(peer: Peer) -> None:
    peer.send(request(1, b"a", end=False))
    peer.connection.drain()
    (first, ping) = peer.take()
    assert (first[0], int.from_bytes(first[3][:4], "big")) == (h2.GOAWAY, h2.LAST_STREAM_ID)
    assert answers(peer.send(request(3, b"b", end=False)), 3) == [b"b"]
    (second,) = peer.send(frame(h2.PING, h2.ACK, 0, ping[3]))
    assert (second[0], int.from_bytes(second[3][:4], "big")) == (h2.GOAWAY, 3)
    assert fault(peer.send(open_stream(5))) == (STREAM, ErrorCode.REFUSED_STREAM)
    peer.send(frame(h2.DATA, h2.END_STREAM, 3, b""))
    assert not peer.wire.closed
    peer.send(frame(h2.DATA, h2.END_STREAM, 1, grpc_message(b"c")))
    assert peer.wire.is_closing()
    assert peer.book.closed == 2


async def test_a_peer_that_sent_goaway_may_finish_its_streams(peer: Peer) -> None:
    peer.send(request(1, b"a", end=False))
    peer.send(frame(h2.GOAWAY, 0, 0, bytes(8)))
    assert not peer.wire.closed
    assert answers(peer.send(frame(h2.DATA, h2.END_STREAM, 1, grpc_message(b"b")))) == [b"b"]
    assert peer.wire.is_closing()


async def test_a_header_block_over_the_limit_ends_its_stream(peer: Peer) -> None:
    """The other streams don't need it decoded, since the peer keeps no table."""
    peer.send(open_stream(1, b"\x20" + REQUEST_BLOCK))
    block = write_headers([*REQUEST, ("x", "y" * (MAX_BLOCK_BYTES * 5 // 4))])
    assert fault(peer.send(open_stream(3, block))) == (STREAM, ErrorCode.ENHANCE_YOUR_CALM)
    parts = open_stream(5, block[:5_000], 0), frame(h2.CONTINUATION, h2.END_HEADERS, 5, block[5_000:])
    assert fault(peer.send(*parts)) == (STREAM, ErrorCode.ENHANCE_YOUR_CALM)
    assert answers(peer.send(request(7, b"a")), 7) == [b"a"]


async def test_an_endless_header_block_ends_the_connection(peer: Peer) -> None:
    fragments = [frame(h2.CONTINUATION, 0, 1, bytes(MAX_BLOCK_BYTES))] * 3
    assert fault(peer.send(open_stream(1, flags=0), *fragments)) == (CONNECTION, ErrorCode.ENHANCE_YOUR_CALM)


class Slow(Book):
    """Takes 10 ms for each exchange, on a clock of its own."""

    now_s = 1.0

    def new_exchange(self, client: RpcClient) -> Echo:
        self.now_s += 0.01
        return super().new_exchange(client)

    @property
    def last_wait_ms(self) -> int:
        return round(1000 * self.waits_s[-1])


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    book = Slow()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: book.now_s)
    return book


PONG = frame(h2.PING, h2.ACK, 0, DELAY_PING)


async def test_messages_know_how_long_they_have_waited_since_they_were_read(slow: Slow) -> None:
    peer = Peer(slow)
    peer.greet()
    peer.receive(b"".join(request(n, b"a") for n in (1, 3, 5)))
    assert [round(1000 * waited_s) for waited_s in slow.waits_s] == [10, 20, 30]
    for _ in range(3):
        await asyncio.sleep(0)
    slow.now_s += 60
    peer.receive(request(9, b"c"))
    assert slow.last_wait_ms == 10


async def test_a_busy_connection_learns_from_a_ping_how_long_the_peer_waits(slow: Slow) -> None:
    peer = Peer(slow)
    peer.greet()
    found = peer.send(*(request(n, b"a") for n in range(1, 11, 2)))
    assert [payload for kind, _, _, payload in found if kind == h2.PING] == [DELAY_PING]
    # Sent before the peer has seen the PING, which is 50 ms old when this is handled.
    peer.receive(request(11, b"a"))
    assert slow.last_wait_ms == 50
    # The peer's answer has waited for 50 ms, and what comes just after it as well.
    found = peer.send(PONG, request(13, b"a"))
    assert slow.last_wait_ms == 50
    assert [payload for kind, _, _, payload in found if kind == h2.PING] == [DELAY_PING]
    found = peer.send(PONG, request(15, b"a"))
    assert slow.last_wait_ms == 10
    assert peer.floods == []


async def test_a_peer_that_never_answers_the_ping_is_not_late_for_ever(slow: Slow) -> None:
    peer = Peer(slow)
    peer.greet()
    peer.receive(b"".join(request(n, b"a") for n in range(1, 11, 2)))
    for _ in range(3):
        await asyncio.sleep(0)
    slow.now_s += 60
    peer.receive(request(11, b"a"))
    assert slow.last_wait_ms == 10


class Picking(Slow):
    """Keeps the level of each message's pick. The message names its client."""

    def __init__(self) -> None:
        super().__init__()
        self.overload = OverloadByClient(0.05, lambda: self.now_s)
        self.levels: dict[bytes, list[Level]] = {b"late": [], b"neighbour": []}

    def new_exchange(self, client: RpcClient) -> Echo:
        super().new_exchange(client)
        return Picked(self, self.overload.of(client, client.address))


class Picked(Echo):
    def __init__(self, book: Picking, overload: Overload) -> None:
        super().__init__(book)
        self._levels, self._overload = book.levels, overload

    def receive(self, message: Message, waited_s: float = 0.0) -> list[bytes] | Awaitable[list[bytes]]:
        self._levels[bytes(message)].append(self._overload.pick(waited_s))
        return super().receive(message, waited_s)


async def test_a_client_that_answers_no_ping_degrades_its_own_picks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Picking()
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: book.now_s)
    late, neighbour = Peer(book), Peer(book)
    late.greet()
    neighbour.greet()
    for n in range(1, 101, 10):
        late.receive(b"".join(request(m, b"late") for m in range(n, n + 10, 2)))
    neighbour.receive(request(1, b"neighbour"))
    assert book.levels[b"late"][-1] == Level.RANDOM
    assert book.levels[b"neighbour"] == [Level.NORMAL]


async def test_answers_to_no_ping_are_a_flood(peer: Peer) -> None:
    peer.send(PONG * 1_100)
    assert peer.floods == [Flood.PING]


async def test_requests_that_are_given_up_are_no_flood(peer: Peer) -> None:
    """A gateway sends on and resets until it learns that a request was given up."""
    for n in range(1, 10_001, 2):
        sent = request(n, b"give up", end=False)
        found = peer.send(sent, frame(h2.DATA, 0, n, grpc_message(b"body")), frame(h2.RST_STREAM, 0, n, pack(">I", 8)))
        assert trailers(found, n)["grpc-status"] == "14"
    assert (peer.floods, peer.book.closed) == ([], 5_000)
