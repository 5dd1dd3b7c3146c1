"""Measuring a streamed response: when its tokens came, counted as tokens and not as chunks."""

from typing import Any

import msgspec

_MAX_EVENT_BYTES = 1 << 20


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct, frozen=True):
    delta: Delta | None = None
    text: str | None = None

    @property
    def has_token(self) -> bool:
        delta = self.delta
        return bool(self.text) or bool(delta and (delta.content or delta.reasoning_content or delta.tool_calls))


class Usage(msgspec.Struct, frozen=True):
    """What a server counted; the Responses API has names of its own."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def prompt(self) -> int | None:
        return self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens

    @property
    def output(self) -> int | None:
        return self.completion_tokens if self.completion_tokens is not None else self.output_tokens


class ResponseObject(msgspec.Struct, frozen=True):
    usage: Usage | None = None


class Event(msgspec.Struct, frozen=True):
    """An event of the completions APIs has `choices`; one of the Responses API a `type`, and its text in `delta`."""

    type: str = ""
    delta: Any = None
    choices: list[Choice] = []
    usage: Usage | None = None
    response: ResponseObject | None = None

    @property
    def has_token(self) -> bool:
        if self.type:
            return self.type.endswith(".delta") and bool(self.delta)
        return any(choice.has_token for choice in self.choices)


_event_decoder = msgspec.json.Decoder(Event)
_usage_decoder = msgspec.json.Decoder(ResponseObject)


def read_usage(document: bytes) -> Usage | None:
    """The usage in a response of one JSON object; None when there is none to be read."""
    try:
        return _usage_decoder.decode(document).usage
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class StreamObserver:
    """Follows one server-sent event stream, however its bytes are cut into chunks.

    A token's time is the time of the chunk that completed its event. Times are seconds of a monotonic clock. An event
    counts as one token, until the server says how many there were.
    """

    __slots__ = ("_partial", "_skipping", "completion_tokens", "events", "first_at", "last_at", "prompt_tokens")

    def __init__(self) -> None:
        self._partial = b""
        self._skipping = False
        self.events = 0
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """The server's own count where it gave one, else the events that carried output."""
        return self.events if self.completion_tokens is None else self.completion_tokens

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per output token after the first; None before there are two."""
        if self.first_at is None or self.last_at is None or self.tokens < 2:
            return None
        return (self.last_at - self.first_at) * 1000 / (self.tokens - 1)

    def feed(self, chunk: bytes, now: float) -> int:
        """Takes in the stream's next bytes; returns how many of its events carried output."""
        data = self._partial + chunk if self._partial else chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, rest = data.split(b"\n\n")
        if self._skipping and events:
            del events[0]
            self._skipping = False
        # Of an event too large to keep, the rest is passed over as well.
        self._skipping = self._skipping or len(rest) > _MAX_EVENT_BYTES
        self._partial = b"" if self._skipping else rest
        before = self.events
        for event in events:
            self._event(event, now)
        return self.events - before

    def _event(self, event: bytes, now: float) -> None:
        for line in event.split(b"\n"):
            if not line.startswith(b"data:") or line.endswith(b"[DONE]"):
                continue
            try:
                parsed = _event_decoder.decode(line[5:])
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            usage = parsed.usage or (parsed.response and parsed.response.usage)
            if usage:
                self.prompt_tokens = usage.prompt or self.prompt_tokens
                self.completion_tokens = usage.output or self.completion_tokens
            if parsed.has_token:
                self.events += 1
                self.last_at = now
                if self.first_at is None:
                    self.first_at = now
