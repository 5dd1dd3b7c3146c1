"""Test the connection's state machine with answers in any form and in any pieces."""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.exceptions import ScrapeError
from epp.scraping.page_connection import MAX_ANSWER_BYTES, PageConnection

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


class ClientWire(asyncio.Transport):
    """Records the bytes sent, and whether the connection was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Events:
    """The events that the connection reported to its listener."""

    pages: list[bytes] = field(default_factory=list)
    errors: list[tuple[str, str, bool]] = field(default_factory=list)
    ended: int = 0

    def connection_began(self) -> None: ...

    def connection_ended(self) -> None:
        self.ended += 1

    def page_came(self, page: bytes) -> None:
        self.pages.append(page)

    def page_failed(self, error: ScrapeError, fresh: bool) -> None:
        self.errors.append((error.kind, str(error), fresh))


def connected() -> tuple[PageConnection, ClientWire, Events]:
    events, wire = Events(), ClientWire()
    connection = PageConnection(REQUEST, events)
    connection.connection_made(wire)
    assert wire.sent == [REQUEST]
    return connection, wire, events


def chunked(body: bytes, sizes: list[int]) -> bytes:
    pieces, rest = [], body
    for size in sizes:
        piece, rest = rest[:size], rest[size:]
        if piece:
            pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
    if rest:
        pieces.append(b"%x;ext=1\r\n%b\r\n" % (len(rest), rest))
    return b"".join(pieces) + b"0\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


bodies = st.binary(max_size=200)
cuts = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.lists(st.tuples(bodies, st.booleans(), st.booleans(), cuts), min_size=1, max_size=3))
def test_pages_arrive_complete_in_any_framing_and_pieces(
    answers: list[tuple[bytes, bool, bool, list[int]]],
) -> None:
    connection, wire, events = connected()
    for number, (body, in_chunks, after_interim, cuts_) in enumerate(answers):
        if number:
            connection.ask(REQUEST)
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" if after_interim else b""
        if in_chunks:
            answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body, [len(cuts_), 3])
        else:
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        for piece in split(interim + answer, cuts_):
            connection.data_received(piece)
        assert events.pages[number:] == [body]
    assert not events.errors
    assert not wire.aborted
    assert wire.sent == [REQUEST] * len(answers)


@given(bodies, st.sampled_from(["HTTP/1.0", "HTTP/1.1"]), cuts)
def test_a_page_without_a_length_ends_with_the_connection(body: bytes, version: str, cuts_: list[int]) -> None:
    connection, _, events = connected()
    for piece in split(f"{version} 200 OK\r\nA: b\r\n\r\n".encode() + body, cuts_):
        connection.data_received(piece)
    assert not events.pages
    connection.connection_lost(None)
    assert (events.pages, events.errors, events.ended) == ([body], [], 1)


@given(st.binary(max_size=300), cuts)
def test_any_bytes_lead_to_exactly_one_page_or_error(data: bytes, cuts_: list[int]) -> None:
    connection, _, events = connected()
    for piece in split(data, cuts_):
        connection.data_received(piece)
    connection.connection_lost(None)
    assert len(events.pages) + len(events.errors) == 1
    assert events.ended == 1


@given(st.integers(0, 200))
def test_a_truncated_page_is_an_error(length: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"x" * 162
    connection, _, events = connected()
    if length:
        connection.data_received(answer[:length])
    connection.connection_lost(None)
    assert not events.pages
    assert events.errors[0][0] == ("page" if length else "connect")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ],
)
def test_a_connection_that_cannot_be_reused_is_closed(answer: bytes) -> None:
    connection, wire, events = connected()
    connection.data_received(answer)
    connection.connection_lost(None)
    assert (events.pages, events.errors, events.ended) == ([b"x"], [], 1)
    assert wire.aborted


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "status", "302"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", "status", "500"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status", "204"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "page", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "page", "no HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "page", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", "page", "more"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_ANSWER_BYTES + 1), "page", "larger"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_ANSWER_BYTES + 1), "page", "larger"),
    ],
)
def test_an_answer_without_a_page_is_an_error_with_its_reason(answer: bytes, kind: str, text: str) -> None:
    connection, _, events = connected()
    connection.data_received(answer)
    assert not events.pages
    assert [(kind_, text in message, fresh) for kind_, message, fresh in events.errors] == [(kind, True, True)]


def test_a_reused_connection_that_ended_while_idle_is_reported_as_not_fresh() -> None:
    connection, wire, events = connected()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    connection.data_received(answer)
    connection.ask(REQUEST)
    connection.connection_lost(ConnectionResetError())
    assert [(kind, fresh) for kind, _, fresh in events.errors] == [("connect", False)]

    connection, wire, events = connected()
    connection.data_received(answer)
    connection.connection_lost(None)
    assert (events.pages, events.errors, events.ended) == ([b"x"], [], 1)

    connection, wire, events = connected()
    connection.data_received(answer)
    connection.data_received(b"and more that nobody asked for")
    assert (events.pages, events.errors, events.ended, wire.aborted) == ([b"x"], [], 1, True)


def test_a_closed_connection_reports_no_events() -> None:
    connection, wire, events = connected()
    connection.close()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    connection.connection_lost(None)
    assert wire.aborted
    assert events == Events()


def test_a_header_without_end_is_given_up_early() -> None:
    connection, wire, events = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\nX: ")
    sent = 0
    while not wire.aborted:
        connection.data_received(b"x" * 4096)
        sent += 4096
    assert sent < 100_000
    assert events.errors[0][0] == "page"
    assert "headers are larger" in events.errors[0][1]
