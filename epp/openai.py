"""Reading what the picker needs from an OpenAI request: the model, the prompt, and the objectives in the headers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from epp.exceptions import BadRequestError

TTFT_HEADERS = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
TPOT_HEADERS = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")
PREDICTION_HEADER = "x-prediction-based-scheduling"
REWRITE_HEADER = "x-gateway-model-name-rewrite"

# The texts that Go's strconv.ParseBool takes, which is what clients of this header have been told.
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class Part(msgspec.Struct, frozen=True):
    text: str = ""


class Message(msgspec.Struct, frozen=True):
    role: str = ""
    content: str | list[Part] | None = None


class Body(msgspec.Struct, frozen=True):
    """The fields that matter here; all others pass through untouched."""

    model: str | None = None
    messages: list[Message] | None = None
    prompt: str | list[Any] | None = None
    input: str | list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a body asks; `text` is empty where the prompt isn't text."""

    model: str
    text: bytes


_decoder = msgspec.json.Decoder(Body)


def parse_body(body: bytes) -> Prompt:
    """The model and prompt of a JSON body; BadRequestError when it is no JSON object with a model."""
    try:
        parsed = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"Error unmarshaling request body: {error}") from error
    if not parsed.model:
        raise BadRequestError("model not found in request body")
    return Prompt(parsed.model, _text(parsed).encode("utf-8", "surrogatepass"))


def rewrite_model(body: bytes, model: str) -> bytes:
    """The body with another model name; every other value keeps its bytes."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def objective_ms(headers: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    """The objective that the first present header gives; None without one, or when it is 0."""
    for name in names:
        if name in headers:
            try:
                value = float(headers[name])
            except ValueError:
                value = math.nan
            if not math.isfinite(value) or value < 0:
                raise BadRequestError(f"{name}: expected a number of milliseconds, got {headers[name][:100]!r}")
            return value or None
    return None


def wants_prediction(headers: Mapping[str, str]) -> bool:
    text = headers.get(PREDICTION_HEADER, "false")
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadRequestError(f"{PREDICTION_HEADER}: expected true or false, got {text[:100]!r}")


def _text(body: Body) -> str:
    if body.messages is not None:
        return "".join(f"<|im_start|>{m.role}\n{_content(m)}<|im_end|>\n" for m in body.messages)
    source = body.prompt if body.prompt is not None else body.input
    if isinstance(source, list):
        return "\n".join(piece for piece in source if isinstance(piece, str))
    return source or ""


def _content(message: Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""
