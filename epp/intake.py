"""From a request's headers and body to what scheduling is told of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from epp import openai
from epp.pool.prefix_index import block_hashes
from epp.scheduling.plugins.prefix import PrefixCacheScorer
from epp.scheduling.request import Request
from epp.tokens import TokenEstimator


@dataclass(frozen=True, slots=True)
class Intake:
    """A request that was read. `body` is what goes on to the model server, `changed` or as it came."""

    request: Request
    prompt_bytes: int
    body: bytes
    changed: bool


def read_request(headers: Mapping[str, str], body: bytes, prefix: PrefixCacheScorer, tokens: TokenEstimator) -> Intake:
    """Reads what is needed; BadRequestError when the body or an objective can't be understood.

    A request without a body (a list of models, say) has no prompt, and is routed by load alone.
    """
    prompt = openai.parse_body(body) if body else openai.Prompt("", b"")
    rewrite = headers.get(openai.REWRITE_HEADER)
    model = rewrite or prompt.model
    request = Request(
        id=headers.get("x-request-id") or str(uuid.uuid4()),
        model=model,
        input_tokens=tokens.estimate(model, len(prompt.text)),
        slo_ttft_ms=openai.objective_ms(headers, openai.TTFT_HEADERS),
        slo_tpot_ms=openai.objective_ms(headers, openai.TPOT_HEADERS),
        prediction_based=openai.wants_prediction(headers),
        block_hashes=block_hashes(model, prompt.text, prefix.hash_block_size, prefix.max_prefix_blocks_to_match),
        headers=headers,
    )
    changed = bool(body) and model != prompt.model
    return Intake(request, len(prompt.text), openai.rewrite_model(body, model) if changed else body, changed)
