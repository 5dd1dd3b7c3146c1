"""Read the model, and the prompt that the server will see, from the body of an OpenAI request."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash

from epp.exceptions import BadRequestError

_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses")
Media = msgspec.Raw | msgspec.UnsetType


class Part(msgspec.Struct, frozen=True):
    """A part of a message: text, or media that is identified by its content."""

    text: str | None = None
    image_url: Media = msgspec.UNSET
    input_audio: Media = msgspec.UNSET
    video_url: Media = msgspec.UNSET
    audio_url: Media = msgspec.UNSET
    file: Media = msgspec.UNSET

    @property
    def media(self) -> msgspec.Raw | None:
        for value in (self.image_url, self.input_audio, self.video_url, self.audio_url, self.file):
            if isinstance(value, msgspec.Raw):
                return value
        return None


class Message(msgspec.Struct, frozen=True):
    role: str = ""
    content: str | list[Part | str] | None = None


Texts = str | list[Message | str | int | list[int]] | None


class Body(msgspec.Struct, frozen=True):
    """The fields that the picker reads; all others pass through untouched."""

    model: str | None = None
    messages: list[Message] | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    prompt: Texts = None
    instructions: str | None = None
    input: Texts = None
    stream: bool | None = None


class _ModelOnly(msgspec.Struct, frozen=True):
    model: Any = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of a body. `text` is empty if it couldn't be read. `tokens` is set if the prompt came as token ids."""

    model: str
    text: str = ""
    tokens: int | None = None
    media_items: int = 0


_decoder = msgspec.json.Decoder(Body)
_model_decoder = msgspec.json.Decoder(_ModelOnly)


def is_read(path: str) -> bool:
    """Return whether bodies at this path are read; True for an empty path."""
    return not path or path.partition("?")[0].rstrip("/").endswith(_PATHS)


def parse_body(body: bytes) -> Prompt:
    """Read the model and prompt of a JSON body; BadRequestError unless the body is a JSON object with a model.

    A body with fields of unexpected types gives an empty prompt, since the model server may still understand it.
    """
    try:
        parsed = _decoder.decode(body)
    except msgspec.ValidationError:
        return Prompt(_model_of(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"Error unmarshaling request body: {error}") from error
    if not parsed.model:
        raise BadRequestError("model not found in request body")
    return _prompt(parsed, parsed.model)


def rewrite_model(body: bytes, model: str) -> bytes:
    """Return the body with another model name; every other value keeps its bytes."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def _model_of(body: bytes) -> str:
    try:
        model = _model_decoder.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"Error unmarshaling request body: {error}") from error
    if not isinstance(model, str) or not model:
        raise BadRequestError("model not found in request body")
    return model


def _prompt(body: Body, model: str) -> Prompt:
    tools = bytes(body.tools).decode()
    if body.messages is not None:
        text, media_items = _conversation(body.messages)
        return Prompt(model, tools + text, media_items=media_items)
    source = body.prompt if body.prompt is not None else body.input
    head = tools + (body.instructions or "")
    if source is None or isinstance(source, str):
        return Prompt(model, head + (source or ""))
    texts = [piece for piece in source if isinstance(piece, str)]
    messages = [piece for piece in source if isinstance(piece, Message)]
    ids = [piece for piece in source if isinstance(piece, int)]
    for piece in source:
        if isinstance(piece, list):
            ids += piece
    text, media_items = _conversation(messages)
    # Token ids are joined as text, because equal ids are equal prefixes too.
    text = head + text + "\n".join(texts) + ",".join(map(str, ids))
    return Prompt(model, text, len(ids) if ids and not texts and not messages else None, media_items)


def _conversation(messages: Iterable[Message]) -> tuple[str, int]:
    """Return the messages as one text in the form of a chat template, and the count of media.

    A digest stands for each media part.
    """
    pieces: list[str] = []
    media_items = 0
    for message in messages:
        pieces += ("<|im_start|>", message.role, "\n")
        if isinstance(message.content, list):
            for part in message.content:
                text, is_media = (part, False) if isinstance(part, str) else _part(part)
                pieces.append(text)
                media_items += is_media
        elif message.content:
            pieces.append(message.content)
        pieces.append("<|im_end|>\n")
    return "".join(pieces), media_items


def _part(part: Part) -> tuple[str, bool]:
    media = part.media
    return (part.text or "", False) if media is None else (xxhash.xxh3_64_hexdigest(bytes(media)), True)
