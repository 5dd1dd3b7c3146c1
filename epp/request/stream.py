"""Read a streamed response: count its output tokens, and keep the usage that the server reports.

An event tells how many tokens it carries, in this order: by continuous usage, by token ids, by logprobs. Else it counts
as one token if it has any text. A token may have an empty text, because its bytes are no whole character. The empty
text beside a role is none: servers begin with it.
"""

from typing import Any

import msgspec

_MAX_EVENT_BYTES = 1 << 20
# Tokens of one event that are believed. A server that reports more must not use up the budget of observations.
_MOST_TOKENS = 1024
_DONE = b"[DONE]"
# The last events of the Responses API, by their type.
_LAST_TYPES = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "error")


class Delta(msgspec.Struct, frozen=True, gc=False):
    """The new part of a message. vLLM sends `reasoning`; older versions and other servers send `reasoning_content`."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None

    @property
    def has_token(self) -> bool:
        if self.content or self.reasoning or self.reasoning_content or self.tool_calls:
            return True
        if self.role is not None:
            return False
        return self.content is not None or self.reasoning is not None or self.reasoning_content is not None


class Logprobs(msgspec.Struct, frozen=True, gc=False):
    """The logprobs of a chat's tokens. The completions API has other fields, which may contain the prompt's tokens."""

    content: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct, frozen=True, gc=False):
    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    token_ids: list[msgspec.Raw] | None = None
    logprobs: Logprobs | None = None
    finish_reason: Any = None

    @property
    def tokens(self) -> int:
        """The tokens that the choice carries, as far as its own fields tell."""
        if self.token_ids is not None:
            return len(self.token_ids)
        if self.logprobs is not None and self.logprobs.content:
            return len(self.logprobs.content)
        return self.text is not None or (self.delta is not None and self.delta.has_token)


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
    def is_delta(self) -> bool:
        """True if the event is of the Responses API, and carries output."""
        return self.type.endswith(".delta") and isinstance(self.delta, str)

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

    An event counts with the chunk that completes it. A stream may have several choices, whose tokens come at the same
    time. The stream follows one of them, from its first token to its end, and then another one. `other_tokens` counts
    the tokens of the others, and `ended_choices` the choices that were followed to their end. `is_exact` says that the
    events tell their tokens.
    """

    __slots__ = (
        "_counted",
        "_followed",
        "_has_begun",
        "_has_ended",
        "_is_continuous",
        "_partial",
        "_skipping",
        "ended_choices",
        "is_exact",
        "other_tokens",
        "usage",
    )

    def __init__(self) -> None:
        self._partial = b""
        self._skipping = False
        self._has_begun = self._has_ended = False
        # The index of the choice that is followed, and the tokens counted so far of each choice.
        self._followed: int | None = None
        self._counted: dict[int, int] = {}
        # Whether events carry the usage so far of their choice.
        self._is_continuous = self.is_exact = False
        self.other_tokens = self.ended_choices = 0
        self.usage: Usage | None = None

    @property
    def is_complete(self) -> bool | None:
        """Whether the events so far are a whole answer. None if no event is of a known API."""
        if self._has_ended or _DONE in self._partial:
            return True
        return False if self._has_begun and not self._skipping else None

    def feed(self, chunk: bytes) -> int:
        """Take in the stream's next bytes; return how many tokens of the followed choice the completed events carry."""
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
        """Return how many tokens of the followed choice the event's data lines carry; keep the usage in it."""
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
            choices = parsed.choices
            usage = parsed.usage or (parsed.response.usage if parsed.response else None)
            if parsed.type:
                found += parsed.is_delta
            for choice in choices:
                found += self._count(choice, usage if len(choices) == 1 else None)
            if usage:
                self._keep(usage, is_of_choice=bool(choices))
            self._has_begun = self._has_begun or parsed.is_known
            self._has_ended = self._has_ended or parsed.is_last
        return found

    def _count(self, choice: Choice, usage: Usage | None) -> int:
        """Count a choice's tokens; return them if the choice is followed, else 0. `usage` is that of its event."""
        index, tokens = choice.index, choice.tokens
        counted = self._counted.get(index, 0)
        # Other servers send a usage with the last choice alone. The tokens in it haven't come at once.
        if usage and usage.output and (self._is_continuous or not choice.finish_reason):
            self._is_continuous = self.is_exact = True
            tokens = min(max(usage.output - counted, 0), _MOST_TOKENS)
        elif choice.token_ids is not None or choice.logprobs is not None:
            self.is_exact = True
        is_followed = index == self._followed
        if tokens and self._followed is None:
            self._followed = index
            # Where another choice has just ended, this token is of the same step as that one's last.
            is_followed = not self._counted
        if tokens:
            self._counted[index] = counted + tokens
        if choice.finish_reason and index == self._followed:
            self._followed = None
            self.ended_choices += 1
        if is_followed:
            return tokens
        self.other_tokens += tokens
        return 0

    def _keep(self, usage: Usage, *, is_of_choice: bool) -> None:
        if is_of_choice and self._is_continuous and len(self._counted) > 1:
            usage = Usage(usage.prompt, sum(self._counted.values()))
        self.usage = usage.filled_from(self.usage)
