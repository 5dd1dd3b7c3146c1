"""Read a streamed response: count the events that carry output, and keep the usage that the server reports."""

from typing import Any

import msgspec

_MAX_EVENT_BYTES = 1 << 20
_DONE = b"[DONE]"
# The last events of the Responses API, by their type.
_LAST_TYPES = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "error")


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct, frozen=True):
    delta: Delta | None = None
    text: str | None = None
    finish_reason: Any = None

    @property
    def has_token(self) -> bool:
        delta = self.delta
        return bool(self.text) or bool(delta and (delta.content or delta.reasoning_content or delta.tool_calls))


class Usage(msgspec.Struct, frozen=True):
    """The tokens that a server counted. The Responses API uses `input_tokens` and `output_tokens`."""

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

    def filled_from(self, earlier: "Usage | None") -> "Usage":
        """Return this usage, with the earlier one's counts where this one has none."""
        prompt, output = (earlier.prompt, earlier.output) if earlier else (None, None)
        return Usage(self.prompt or prompt, self.output or output)


class ResponseObject(msgspec.Struct, frozen=True):
    usage: Usage | None = None


class Event(msgspec.Struct, frozen=True):
    """A stream event: `choices` in the completions APIs, `type` with the text in `delta` in the Responses API."""

    type: str = ""
    delta: Any = None
    choices: list[Choice] = []
    usage: Usage | None = None
    response: ResponseObject | None = None
    error: Any = None

    @property
    def has_token(self) -> bool:
        if self.type:
            return self.type.endswith(".delta") and bool(self.delta)
        return any(choice.has_token for choice in self.choices)

    @property
    def is_known(self) -> bool:
        """True if the event is one of the APIs whose last events are known."""
        return bool(self.choices) or self.type.startswith("response.")

    @property
    def is_last(self) -> bool:
        """True if the answer may end with this event: its usage, the reason why it is over, or an error."""
        if self.type:
            return self.type in _LAST_TYPES
        if not self.choices:
            return self.usage is not None or self.error is not None
        return any(choice.finish_reason for choice in self.choices)


_event_decoder = msgspec.json.Decoder(Event)
_usage_decoder = msgspec.json.Decoder(ResponseObject)


def read_usage(document: bytes) -> Usage | None:
    """Return the usage in a response of one JSON object; None when the object has no readable usage."""
    try:
        return _usage_decoder.decode(document).usage
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class EventStream:
    """Follows one stream of server-sent events, however its bytes are cut into chunks.

    An event counts with the chunk that completes it.
    """

    __slots__ = ("_has_begun", "_has_ended", "_partial", "_skipping", "usage")

    def __init__(self) -> None:
        self._partial = b""
        self._skipping = False
        self._has_begun = self._has_ended = False
        self.usage: Usage | None = None

    @property
    def is_complete(self) -> bool | None:
        """Whether the events so far are a whole answer. None if no event is of a known API."""
        if self._has_ended or _DONE in self._partial:
            return True
        return False if self._has_begun and not self._skipping else None

    def feed(self, chunk: bytes) -> int:
        """Take in the stream's next bytes; return how many of the completed events carry output."""
        data = self._partial + chunk if self._partial else chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, rest = data.split(b"\n\n")
        if self._skipping and events:
            del events[0]
            self._skipping = False
        # Skip an event that is too large to keep, up to its end.
        self._skipping = self._skipping or len(rest) > _MAX_EVENT_BYTES
        self._partial = b"" if self._skipping else rest
        return sum(map(self._read, events))

    def _read(self, event: bytes) -> int:
        """Return how many of the event's data lines carry output; keep the usage in it."""
        found = 0
        for line in event.split(b"\n"):
            if not line.startswith(b"data:"):
                continue
            if line.endswith(_DONE):
                self._has_ended = True
                continue
            try:
                parsed = _event_decoder.decode(line[5:])
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            usage = parsed.usage or (parsed.response and parsed.response.usage)
            if usage:
                self.usage = usage.filled_from(self.usage)
            self._has_begun = self._has_begun or parsed.is_known
            self._has_ended = self._has_ended or parsed.is_last
            found += parsed.has_token
        return found
