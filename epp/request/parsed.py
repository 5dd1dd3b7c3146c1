"""Parse a request's headers and body into the request that the scheduler sees."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from epp.pool.objectives import Objectives
from epp.pool.prefix_index import block_hashes
from epp.prediction.wire import LengthSource
from epp.request import headers as request_headers
from epp.request import openai
from epp.request.base_model import BaseModel
from epp.request.body_pieces import Rewrite
from epp.request.default_objectives import DefaultObjectives
from epp.request.large_bodies import LargeBodies, Reading, ReceivedBody, Unread, is_cheap
from epp.request.names import shorten
from epp.request.text_kinds import KINDS, Floats, count_kinds
from epp.request.tokens import TokenEstimator, Tokenizer
from epp.scheduling.plugins.prefix import PrefixParameters
from epp.scheduling.request import Request

_NO_PROMPT = openai.Prompt("")
_NO_DEFAULTS = DefaultObjectives()
_NOTHING: Floats = np.zeros(len(KINDS))


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request as the picker understands it.

    `incoming_model` is the model that the client named, empty if it named none. `request.model` is the name after a
    rewrite, or that of the base model. `rewrite` is the change of the body, None if it goes on as it came. `kinds`
    counts what the prompt's text consists of (text_kinds.py). `is_exact` says that the prompt came as token ids, so
    that its length needs no estimate. `unread` says why only a part of the body was read; it is empty if all was.
    `is_stream` says that the client wants the answer token by token.
    """

    request: Request
    incoming_model: str
    objective: str = ""
    prompt_bytes: int = 0
    kinds: Floats = field(default_factory=lambda: _NOTHING, compare=False)
    body_bytes: int = 0
    rewrite: Rewrite | None = None
    is_exact: bool = False
    length_source: LengthSource = "estimate"
    unread: Unread = ""
    is_stream: bool = False

    @property
    def tells_lengths(self) -> bool:
        """True if the server's count of prompt tokens is that of the text alone, all of which was read."""
        return not (self.is_exact or self.unread or self.request.media_items)


@dataclass(frozen=True, slots=True)
class RequestReader:
    """Reads requests. `tokens` estimates a prompt's length; a `tokenizer`, where there is one, counts it.

    Of a body larger than `most_bytes`, only the leading part is read.
    """

    tokens: TokenEstimator
    tokenizer: Tokenizer | None = None
    priority_of: Callable[[str], int] = Objectives().priority_of
    most_bytes: int = 1 << 20
    large_bodies: LargeBodies = field(default_factory=LargeBodies)
    base_model: BaseModel = field(default_factory=BaseModel)
    defaults: DefaultObjectives = field(default_factory=DefaultObjectives)

    def read(
        self, headers: Mapping[str, str], body: bytes | ReceivedBody, prefix: PrefixParameters
    ) -> ParsedRequest | Awaitable[ParsedRequest]:
        """Parse a request, at once unless its body has many values, or a tokenizer must be awaited.

        Raise BadRequestError for a wrong body or objective. A request without a body (such as a list of models), or to
        a path that isn't read, has no prompt and is routed by load alone.
        """
        received = ReceivedBody.whole(body) if isinstance(body, bytes) else body
        if not received.size or not openai.is_read(headers.get(":path", "")):
            return self._parsed(headers, received, Reading(_NO_PROMPT), prefix, is_read=False)
        if received.is_whole and is_cheap(received.lead):
            return self._parsed(headers, received, Reading(openai.parse_body(received.lead)), prefix)
        return self._read_later(headers, received, prefix)

    async def _read_later(
        self, headers: Mapping[str, str], body: ReceivedBody, prefix: PrefixParameters
    ) -> ParsedRequest:
        reading = await self.large_bodies.read(body)
        # Hash the prompt and decide in a turn of their own.
        await asyncio.sleep(0)
        parsed = self._parsed(headers, body, reading, prefix)
        return parsed if isinstance(parsed, ParsedRequest) else await parsed

    def _parsed(
        self,
        headers: Mapping[str, str],
        body: ReceivedBody,
        reading: Reading,
        prefix: PrefixParameters,
        *,
        is_read: bool = True,
    ) -> ParsedRequest | Awaitable[ParsedRequest]:
        prompt = reading.prompt
        named = (request_headers.first(headers, request_headers.REWRITE) if is_read else None) or prompt.model
        # A body without a model is one for the base model, unless its model is in the part that wasn't read.
        wanted = named or (self.base_model.name if is_read and not reading.unread else "")
        model, text = shorten(wanted), prompt.text
        prompt_bytes, tokens = _lengths(reading, body.size)
        objective = request_headers.first(headers, request_headers.OBJECTIVE) or ""
        is_exact = tokens is not None
        goals = (self.defaults if is_read else _NO_DEFAULTS).wanted(model, headers)
        kinds = _NOTHING if is_exact or not prompt_bytes else count_kinds(text, prompt_bytes)
        request = Request(
            id=shorten(headers.get(request_headers.REQUEST_ID, "")) or str(uuid.uuid4()),
            model=model,
            input_tokens=self.tokens.estimate(model, kinds) if tokens is None else tokens,
            slo_ttft_ms=goals.ttft_ms,
            slo_tpot_ms=goals.tpot_ms,
            prediction_based=goals.is_predicted,
            priority=self.priority_of(objective) if objective else 0,
            media_items=prompt.media_items,
            block_hashes=_hashes(model, text, prefix),
            headers=headers,
        )
        parsed = ParsedRequest(
            request=request,
            incoming_model=shorten(prompt.model),
            objective=objective,
            prompt_bytes=prompt_bytes,
            kinds=kinds,
            body_bytes=body.size,
            rewrite=_rewrite(body, reading, named) if named != prompt.model else None,
            is_exact=is_exact,
            unread=reading.unread,
            is_stream=prompt.is_stream,
        )
        if self.tokenizer and text and not is_exact and not reading.unread:
            return _counted(self.tokenizer, parsed, text)
        return parsed


def _lengths(reading: Reading, size: int) -> tuple[int, int | None]:
    """Return the prompt's length in bytes, and in tokens if they were counted.

    A part of a body stands for all of it: the rest is taken to be like the part that was read.
    """
    text, tokens = reading.prompt.text, reading.prompt.tokens
    prompt_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if not reading.unread:
        return prompt_bytes, tokens
    if not prompt_bytes:
        return size, None
    share = reading.read_bytes / size
    return round(prompt_bytes / share), None if tokens is None else round(tokens / share)


def _rewrite(body: ReceivedBody, reading: Reading, model: str) -> Rewrite | None:
    place = openai.find_model_name(body.lead) if body.is_whole else reading.model_at
    name = msgspec.json.encode(model)
    if place:
        return Rewrite(place, name)
    first = openai.find_place_for_model(body.lead) if body.is_whole else None
    return Rewrite(first[0], b'"model":' + name + (b"," if first[1] else b"")) if first else None


async def _counted(tokenizer: Tokenizer, parsed: ParsedRequest, text: str) -> ParsedRequest:
    tokens = await asyncio.to_thread(tokenizer.count, text)
    return replace(parsed, request=replace(parsed.request, input_tokens=tokens), length_source="tokenizer")


def _hashes(model: str, text: str, prefix: PrefixParameters) -> tuple[int, ...]:
    """Hash the leading blocks. Cutting the text first is safe, since a character has at least one byte."""
    block_bytes, most = prefix.hash_block_size, prefix.max_prefix_blocks_to_match
    return block_hashes(model, text[: block_bytes * most].encode("utf-8", "surrogatepass"), block_bytes, most)
