"""Read the model, and the prompt that the server will see, from the body of an OpenAI request."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash

from epp.exceptions import BadRequestError

_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses")
# The paths of the OpenAI API begin so, and also the paths of that API that the picker doesn't read.
API_PREFIX = "/v1/"
_NULL = b"null"
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


class RawBody(msgspec.Struct, frozen=True):
    """The fields that token ids come with, unparsed. Decoding makes no objects of the values."""

    model: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(_NULL)
    tools: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(_NULL)
    instructions: msgspec.Raw = msgspec.Raw(_NULL)
    input: msgspec.Raw = msgspec.Raw(_NULL)
    stream: msgspec.Raw = msgspec.Raw(_NULL)


class Span(NamedTuple):
    """The bytes from `start` to before `end`."""

    start: int
    end: int

    def moved(self, by: int) -> "Span":
        return Span(self.start + by, self.end + by)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of a body. `text` is empty if it couldn't be read. `tokens` is set if the prompt came as token ids."""

    model: str
    text: str = ""
    tokens: int | None = None
    media_items: int = 0
    is_stream: bool = False


_decoder = msgspec.json.Decoder(Body)
_raw_decoder = msgspec.json.Decoder(RawBody)
_OBJECT_BEGIN = re.compile(rb"(\s*\{)\s*(\}?)")
_MODEL_FIELD = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
# Places in the last bytes of a body that may be its model.
_MOST_TRIES = 8
_SPACE = b" \t\r\n"
_DIGITS = b"0123456789-"
# Lists of token ids in one prompt that are counted.
_MOST_LISTS = 8192


def is_read(path: str) -> bool:
    """Return whether bodies at this path are read; True for an empty path."""
    return not path or path.partition("?")[0].rstrip("/").endswith(_PATHS)


def parse_body(body: bytes) -> Prompt:
    """Read the model and prompt of a JSON body; BadRequestError unless the body is a JSON object.

    A body with fields of unexpected types gives an empty prompt, since the model server may still understand it. A body
    without a model has an empty model, because servers take their base model for it.
    """
    try:
        parsed = _decoder.decode(body)
    except msgspec.ValidationError:
        return Prompt(_model_of(_decode_raw(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"Error unmarshaling request body: {error}") from error
    return _prompt(parsed, parsed.model or "")


def parse_lead(document: bytes) -> tuple[Prompt, Span | None]:
    """Read a leading part of a body that was made a document; return the prompt, and the place of the model's name.

    What can't be read is empty: a part may lack the model, or end within it.
    """
    try:
        raw = _decode_raw(document)
    except BadRequestError:
        return Prompt(""), None
    model = _model_of(raw)
    try:
        prompt = _prompt(_decoder.decode(document), model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        prompt = Prompt(model)
    return prompt, _place_in(document, raw.model) if model else None


def parse_token_ids(body: bytes) -> Prompt:
    """Read the model, and the prompt if it is token ids alone, without making objects of the ids.

    The prompt's `tokens` is None if the prompt is anything else. Raise as parse_body.
    """
    raw = _decode_raw(body)
    model = _model_of(raw)
    source = raw.prompt if bytes(raw.prompt) != _NULL else raw.input
    ids = _token_ids(bytes(source).translate(None, _SPACE)) if bytes(raw.messages) == _NULL else b""
    try:
        instructions = msgspec.json.decode(raw.instructions, type=str | None)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Prompt(model)
    if not ids:
        return Prompt(model)
    head = bytes(raw.tools).decode() + (instructions or "")
    return Prompt(model, head + ids.decode(), ids.count(b",") + 1, is_stream=bytes(raw.stream) == b"true")


def find_model_name(body: bytes) -> Span | None:
    """Return the place of the value of `model` in a JSON object, with its quotes. Of several, the last one counts."""
    try:
        return _place_in(body, _decode_raw(body).model)
    except BadRequestError:
        return None


def find_model(tail: bytes) -> tuple[str, Span] | None:
    """Find the model in the last bytes of a JSON object; return its name, and the place of the name with its quotes.

    The rest after the field is a whole object only if the field belongs to the body itself, not to an object within.
    """
    at = len(tail)
    for _ in range(_MOST_TRIES):
        at = tail.rfind(b'"model"', 0, at)
        if at < 0:
            return None
        field = _MODEL_FIELD.match(tail, at)
        if field and (model := _model_in_end(tail[at:])):
            return model, Span(*field.span(1))
    return None


def find_place_for_model(body: bytes) -> tuple[Span, bool] | None:
    """Return the place for a first field in a JSON object, and whether others follow; None unless it is an object."""
    start = _OBJECT_BEGIN.match(body)
    return (Span(start.end(1), start.end(1)), not start[2]) if start else None


def rewrite_model(body: bytes, model: str) -> bytes:
    """Return the body with another model name; all other bytes stay."""
    place = find_model_name(body)
    return body if place is None else body[: place.start] + msgspec.json.encode(model) + body[place.end :]


def _decode_raw(body: bytes) -> RawBody:
    try:
        return _raw_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"Error unmarshaling request body: {error}") from error


def _model_of(raw: RawBody) -> str:
    """Return the model's name, or an empty text if it is none."""
    value = bytes(raw.model)
    model: str = msgspec.json.decode(value) if value.startswith(b'"') else ""
    return model


def _model_in_end(end: bytes) -> str:
    try:
        return _model_of(_decode_raw(b"{" + end))
    except BadRequestError:
        return ""


def _place_in(body: bytes, raw: msgspec.Raw) -> Span | None:
    """Return the place of a raw value in the body that it was decoded from, or None for a value that was not there.

    The raw value shares the body's memory, so that its address tells its place.
    """
    value = memoryview(raw)
    if not len(value):
        return None
    start = _address(value) - _address(memoryview(body))
    return Span(start, start + len(value))


def _token_ids(source: bytes) -> bytes:
    """Return the ids of a JSON list of integers, or of a list of such lists, joined by commas; empty for others."""
    if source.translate(None, _DIGITS + b",[]"):
        return b""
    ids = source[1:-1]
    if ids.startswith(b"[") and ids.endswith(b"]"):
        lists, ids = ids.count(b"["), ids[1:-1]
        between = ids.count(b"],[")
        if lists > _MOST_LISTS or between != lists - 1 or b"[]" in source:
            return b""
        ids = ids.replace(b"],[", b",")
    return b"" if b"[" in ids or b"]" in ids else ids


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)


def _prompt(body: Body, model: str) -> Prompt:
    tools = bytes(body.tools).decode()
    if body.messages is not None:
        text, media_items = _conversation(body.messages)
        return Prompt(model, tools + text, media_items=media_items, is_stream=bool(body.stream))
    source = body.prompt if body.prompt is not None else body.input
    head = tools + (body.instructions or "")
    if source is None or isinstance(source, str):
        return Prompt(model, head + (source or ""), is_stream=bool(body.stream))
    texts = [piece for piece in source if isinstance(piece, str)]
    messages = [piece for piece in source if isinstance(piece, Message)]
    ids = [piece for piece in source if isinstance(piece, int)]
    for piece in source:
        if isinstance(piece, list):
            ids += piece
    text, media_items = _conversation(messages)
    # Token ids are joined as text, because equal ids are equal prefixes too.
    text = head + text + "\n".join(texts) + ",".join(map(str, ids))
    tokens = len(ids) if ids and not texts and not messages else None
    return Prompt(model, text, tokens, media_items, is_stream=bool(body.stream))


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
