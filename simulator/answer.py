"""Answers of the OpenAI API, whole or as a stream of chunks, as vLLM writes them."""

from typing import Any

import msgspec

from simulator.sequence import Sequence

# The text of every token. It begins with a space, as most tokens of English text do.
WORD = " token"
DONE = b"data: [DONE]\n\n"
# The only finish reason: every request gets as many tokens as it asks for.
_LENGTH = "length"


class Frame(msgspec.Struct, frozen=True):
    """The fields that every part of an answer repeats.

    A stream encodes its token chunk once and sends the same bytes for each token.
    """

    request_id: str
    model: str
    chat: bool
    created: int

    def whole(self, sequence: Sequence) -> bytes:
        """Return the answer as one JSON document."""
        text = WORD * sequence.output_tokens
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": _LENGTH}
        return msgspec.json.encode({**self._head(), "choices": [choice], "usage": usage(sequence)})

    def role_chunk(self) -> bytes:
        """Return a chat's first chunk, which carries no text, or no bytes for a completion."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}) if self.chat else b""

    def token_chunk(self, last: bool = False) -> bytes:
        """Return the chunk of one token. The last one carries the finish reason, as in vLLM."""
        said = {"delta": {"content": WORD}} if self.chat else {"text": WORD}
        return self._chunk(said, _LENGTH if last else None)

    def usage_chunk(self, sequence: Sequence) -> bytes:
        return _event({**self._head(".chunk"), "choices": [], "usage": usage(sequence)})

    def _chunk(self, said: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return _event({**self._head(".chunk"), "choices": [choice]})

    def _head(self, suffix: str = "") -> dict[str, Any]:
        prefix, kind = ("chatcmpl", f"chat.completion{suffix}") if self.chat else ("cmpl", "text_completion")
        return {"id": f"{prefix}-{self.request_id}", "object": kind, "created": self.created, "model": self.model}


def usage(sequence: Sequence) -> dict[str, Any]:
    return {
        "prompt_tokens": sequence.prompt_tokens,
        "total_tokens": sequence.end,
        "completion_tokens": sequence.output_tokens,
        "prompt_tokens_details": {"cached_tokens": sequence.cached_tokens or 0},
    }


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
