"""Requests to send, made of a trace: with objectives, and texts of the right length."""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.prompt import BYTES_PER_TOKEN
from simulator.trace import TraceRequest

# Bytes that the chat template adds around one user message.
TEMPLATE_BYTES = len("<|im_start|>user\n<|im_end|>\n")


@dataclass(frozen=True, slots=True)
class SloClass:
    """Objectives for a share of the requests. The TTFT objective grows with the prompt."""

    name: str
    share: float
    ttft_ms: float
    ttft_ms_per_prompt_token: float
    tpot_ms: float


INTERACTIVE = SloClass("interactive", 0.5, ttft_ms=900, ttft_ms_per_prompt_token=0.8, tpot_ms=60)
RELAXED = SloClass("relaxed", 0.5, ttft_ms=2_500, ttft_ms_per_prompt_token=2.0, tpot_ms=120)
SLO_CLASSES = (INTERACTIVE, RELAXED)


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request to send at `arrival_s` after the start."""

    index: int
    id: str
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    slo_class: str
    slo_ttft_ms: float
    slo_tpot_ms: float
    prompt: str


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A prefix that a share of the requests begin with, like an application's system prompt."""

    share: float
    tokens: int


NOTHING_SHARED = SharedPrefix(share=0.0, tokens=0)


def plan(
    trace: Sequence[TraceRequest],
    *,
    seed: int,
    salt: str = "",
    classes: Sequence[SloClass] = SLO_CLASSES,
    shared: SharedPrefix = NOTHING_SHARED,
) -> list[PlannedRequest]:
    """Return a request to send for each request of the trace.

    `seed` decides the objectives and which requests share the prefix. `seed` and `salt` decide texts and ids: two runs
    with different salts share no prefix, so neither finds the other's prompts in a cache.
    """
    objectives = random.Random(seed)
    sharers = random.Random(f"{seed}/sharers")
    texts = random.Random(f"{seed}/{salt}")
    prefix = _text(random.Random(f"{seed}/{salt}/prefix"), shared.tokens * BYTES_PER_TOKEN)
    planned = []
    for index, request in enumerate(trace):
        slo = objectives.choices(classes, [c.share for c in classes])[0]
        start = prefix if sharers.random() < shared.share else ""
        planned.append(
            PlannedRequest(
                index=index,
                id=f"{texts.getrandbits(128):032x}",
                arrival_s=request.arrival_s,
                prompt_tokens=request.prompt_tokens,
                output_tokens=request.output_tokens,
                slo_class=slo.name,
                slo_ttft_ms=round(slo.ttft_ms + slo.ttft_ms_per_prompt_token * request.prompt_tokens, 3),
                slo_tpot_ms=slo.tpot_ms,
                prompt=_text(texts, request.prompt_tokens * BYTES_PER_TOKEN - TEMPLATE_BYTES, start),
            )
        )
    return planned


def _text(rng: random.Random, length: int, start: str = "") -> str:
    """Return `start`, then a repeated random word, so that no other text has equal blocks. At least one character."""
    word = "".join(rng.choices(string.ascii_lowercase, k=24)) + " "
    length = max(length, 1)
    return (start + word * (length // len(word) + 1))[:length]
