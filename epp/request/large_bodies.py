"""Read large request bodies: one body at a time, with a bounded amount of work in each turn of the event loop."""

import asyncio
import logging
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from epp.request import openai
from epp.request.json_prefix import JsonScan, has_few_elements
from epp.request.openai import Prompt, Span

logger = logging.getLogger("headroom.epp.request")

# Values of a body that is parsed at once, in a millisecond at most.
_CHEAP_ELEMENTS: Final = 2048
# Values that one turn parses of any other body. A value costs up to 0.4 us, and 8192 of them 3 ms.
MOST_ELEMENTS: Final = 8192
# Bytes that one turn scans, in 0.3 ms; in 2 ms if all of them are backslashes.
SLICE_BYTES: Final = 1 << 16
# Bodies that wait to be read in turns. A body takes at most 15 ms, and gateways wait 200 ms for a pick by default.
_MOST_WAITING = 8
# Bytes that are read at once of a body that can't wait.
_HURRIED_BYTES = 1 << 12
# Bytes at the end of a body that are searched for the model.
TAIL_BYTES: Final = 1 << 14

Unread = Literal["", "size", "elements", "busy"]


class ReceivedBody(NamedTuple):
    """A body as far as it will be read: all of it, or its leading and its last bytes.

    `size` is the count of bytes of the whole body. `tail` is empty if the body is whole, or its end isn't known.
    """

    lead: bytes
    size: int
    tail: bytes = b""

    @classmethod
    def whole(cls, body: bytes) -> "ReceivedBody":
        return cls(body, len(body))

    @property
    def is_whole(self) -> bool:
        return len(self.lead) == self.size


class Reading(NamedTuple):
    """The prompt of a body, and the place of its model's name.

    `unread` says why only the leading `read_bytes` were read; it is empty if all were.
    """

    prompt: Prompt
    model_at: Span | None = None
    unread: Unread = ""
    read_bytes: int = 0


def is_cheap(body: bytes) -> bool:
    """Return whether one turn of the event loop can parse the body, by the count of its values."""
    return has_few_elements(body, _CHEAP_ELEMENTS)


class LargeBodies:
    """Reads bodies in turns. Further bodies wait, and when too many wait, only the leading part of a body is read."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def read(self, body: ReceivedBody) -> Reading:
        """Read a body. Raise BadRequestError if all of it is known, and it is no JSON object."""
        if self._waiting >= _MOST_WAITING:
            return _read_beginning(body)
        self._waiting += 1
        try:
            async with self._turn:
                return await _read_in_turns(body)
        finally:
            self._waiting -= 1


async def _read_in_turns(body: ReceivedBody) -> Reading:
    named = None
    if body.is_whole:
        named = openai.parse_token_ids(body.lead)
        if named.tokens is not None:
            return Reading(named)
        await asyncio.sleep(0)
    scan = JsonScan(body.lead, MOST_ELEMENTS)
    while not scan.is_done:
        scan.scan(SLICE_BYTES)
        await asyncio.sleep(0)
    if named is not None and not scan.is_full:
        return Reading(openai.parse_body(body.lead))
    closed = scan.closed()
    await asyncio.sleep(0)
    if named is None:
        return _read_lead(body, closed, "size", cuts_string=scan.cuts_string)
    reading = _read_lead(body, closed, "elements", cuts_string=scan.cuts_string)
    return reading._replace(prompt=replace(reading.prompt, model=named.model))


def _read_beginning(body: ReceivedBody) -> Reading:
    scan = JsonScan(body.lead[:_HURRIED_BYTES], MOST_ELEMENTS)
    while not scan.is_done:
        scan.scan(SLICE_BYTES)
    return _read_lead(body, scan.closed(), "busy", cuts_string=scan.cuts_string)


def _read_lead(body: ReceivedBody, closed: bytes, unread: Unread, *, cuts_string: bool) -> Reading:
    """Read a part that was closed, and look for the model at the body's end if the part doesn't name it."""
    prompt, model_at = openai.parse_lead(closed)
    if model_at and cuts_string and model_at.end == len(closed) - 1:
        # The name itself is cut.
        prompt, model_at = replace(prompt, model=""), None
    tail = body.lead[-TAIL_BYTES:] if body.is_whole else body.tail
    if not prompt.model and (found := openai.find_model(tail)):
        model, place = found
        prompt, model_at = replace(prompt, model=model), place.moved(body.size - len(tail))
    logger.debug("of a body of %d bytes, %d are read: %s", body.size, len(closed), unread)
    return Reading(prompt, model_at, unread, min(len(closed), body.size))
