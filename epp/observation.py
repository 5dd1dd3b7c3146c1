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
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Event(msgspec.Struct, frozen=True):
    choices: list[Choice] = []
    usage: Usage | None = None


_decoder = msgspec.json.Decoder(Event)


class StreamObserver:
    """Follows one server-sent event stream, however its bytes are cut into chunks.

    A token's time is the time of the chunk that completed its event. Times are seconds of a monotonic clock.
    """

    __slots__ = ("_partial", "completion_tokens", "events", "first_at", "last_at", "prompt_tokens")

    def __init__(self) -> None:
        self._partial = b""
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

    def feed(self, chunk: bytes, now: float) -> None:
        """Takes in the stream's next bytes."""
        data = self._partial + chunk if self._partial else chunk
        *events, rest = data.replace(b"\r\n", b"\n").split(b"\n\n")
        self._partial = rest if len(rest) <= _MAX_EVENT_BYTES else b""
        for event in events:
            self._event(event, now)

    def _event(self, event: bytes, now: float) -> None:
        for line in event.split(b"\n"):
            if not line.startswith(b"data:") or line.endswith(b"[DONE]"):
                continue
            try:
                parsed = _decoder.decode(line[5:])
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if parsed.usage:
                self.prompt_tokens = parsed.usage.prompt_tokens or self.prompt_tokens
                self.completion_tokens = parsed.usage.completion_tokens or self.completion_tokens
            if any(choice.has_token for choice in parsed.choices):
                self.events += 1
                self.last_at = now
                if self.first_at is None:
                    self.first_at = now
