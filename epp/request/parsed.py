"""Parse a request's headers and body into the request that the scheduler sees."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from epp.pool.objectives import Objectives
from epp.pool.prefix_index import block_hashes
from epp.prediction.wire import LengthSource
from epp.request import headers as request_headers
from epp.request import openai
from epp.request.tokens import TokenEstimator, Tokenizer
from epp.scheduling.plugins.prefix import PrefixParameters
from epp.scheduling.request import Request

_NO_PROMPT = openai.Prompt("")


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request as the picker understands it.

    `incoming_model` is the model that the client named, and `request.model` the name after a rewrite. `body` goes on to
    the model server; `changed` says whether it differs from the client's. `is_exact` says that the prompt came as token
    ids, so that its length needs no estimate.
    """

    request: Request
    incoming_model: str
    objective: str = ""
    prompt_bytes: int = 0
    body: bytes = b""
    changed: bool = False
    is_exact: bool = False
    length_source: LengthSource = "estimate"


@dataclass(frozen=True, slots=True)
class RequestReader:
    """Reads requests. `tokens` estimates a prompt's length; a `tokenizer`, where there is one, counts it."""

    tokens: TokenEstimator
    tokenizer: Tokenizer | None = None
    priority_of: Callable[[str], int] = Objectives().priority_of

    def read(
        self, headers: Mapping[str, str], body: bytes, prefix: PrefixParameters
    ) -> ParsedRequest | Awaitable[ParsedRequest]:
        """Parse a request, at once unless a tokenizer must be awaited.

        Raise BadRequestError for a wrong body or objective. A request without a body (such as a list of models), or to
        a path that isn't read, has no prompt and is routed by load alone.
        """
        is_read = bool(body) and openai.is_read(headers.get(":path", ""))
        prompt = openai.parse_body(body) if is_read else _NO_PROMPT
        model = (is_read and request_headers.first(headers, request_headers.REWRITE)) or prompt.model
        text = prompt.text
        prompt_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        objective = request_headers.first(headers, request_headers.OBJECTIVE) or ""
        is_exact = prompt.tokens is not None
        request = Request(
            id=headers.get(request_headers.REQUEST_ID) or str(uuid.uuid4()),
            model=model,
            input_tokens=self.tokens.estimate(model, prompt_bytes) if prompt.tokens is None else prompt.tokens,
            slo_ttft_ms=request_headers.objective_ms(headers, request_headers.TTFT),
            slo_tpot_ms=request_headers.objective_ms(headers, request_headers.TPOT),
            prediction_based=request_headers.wants_prediction(headers),
            priority=self.priority_of(objective) if objective else 0,
            media_items=prompt.media_items,
            block_hashes=_hashes(model, text, prefix),
            headers=headers,
        )
        changed = model != prompt.model
        parsed = ParsedRequest(
            request=request,
            incoming_model=prompt.model,
            objective=objective,
            prompt_bytes=prompt_bytes,
            body=openai.rewrite_model(body, model) if changed else body,
            changed=changed,
            is_exact=is_exact,
        )
        if self.tokenizer and text and not is_exact:
            return _counted(self.tokenizer, parsed, text)
        return parsed


async def _counted(tokenizer: Tokenizer, parsed: ParsedRequest, text: str) -> ParsedRequest:
    tokens = await asyncio.to_thread(tokenizer.count, text)
    return replace(parsed, request=replace(parsed.request, input_tokens=tokens), length_source="tokenizer")


def _hashes(model: str, text: str, prefix: PrefixParameters) -> tuple[int, ...]:
    """Hash the leading blocks. Cutting the text first is safe, since a character has at least one byte."""
    block_bytes, most = prefix.hash_block_size, prefix.max_prefix_blocks_to_match
    return block_hashes(model, text[: block_bytes * most].encode("utf-8", "surrogatepass"), block_bytes, most)
