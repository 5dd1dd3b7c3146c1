"""The OpenAI requests that the simulated server accepts. It ignores fields that it doesn't use."""

from typing import Annotated

import msgspec

from simulator.exceptions import RequestError
from simulator.prompt import BYTES_PER_TOKEN

DEFAULT_OUTPUT_TOKENS = 128
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
TokenId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Part(msgspec.Struct, frozen=True):
    text: str = ""


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/completions."""

    model: str
    # A text, or ids of tokens.
    prompt: str | Annotated[list[TokenId], msgspec.Meta(min_length=1)]
    # A lower one goes first, with the scheduling policy "priority".
    priority: int = 0
    stream: bool = False
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stream_options: StreamOptions | None = None

    def text(self) -> bytes:
        if isinstance(self.prompt, list):
            return b"".join(token.to_bytes(BYTES_PER_TOKEN, "little") for token in self.prompt)
        return self.prompt.encode("utf-8", "surrogatepass")

    @property
    def output_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_OUTPUT_TOKENS

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatCompletion(Completion, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    prompt: str | Annotated[list[TokenId], msgspec.Meta(min_length=1)] = ""

    def text(self) -> bytes:
        rendered = (f"<|im_start|>{m.role}\n{_content(m)}<|im_end|>\n" for m in self.messages)
        return "".join(rendered).encode("utf-8", "surrogatepass")


def decode(body: bytes, kind: type[Completion]) -> Completion:
    """Decode a request's body. RequestError says what is wrong, and where."""
    try:
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise RequestError(400, f"the body is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise RequestError(400, "the body is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise RequestError(400, str(error)) from error


def _content(message: Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""
