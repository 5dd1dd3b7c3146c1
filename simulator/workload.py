"""From a trace to requests that can be sent: objectives, and texts of the right length."""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.prompt import BYTES_PER_TOKEN
from simulator.trace import TraceRequest

# What the chat template adds around one user message, in bytes.
_TEMPLATE_BYTES = len("<|im_start|>user\n<|im_end|>\n")


@dataclass(frozen=True, slots=True)
class SloClass:
    """Objectives for a share of the requests. A longer prompt is allowed a later first token."""

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


def plan(
    trace: Sequence[TraceRequest], *, seed: int, salt: str = "", classes: Sequence[SloClass] = SLO_CLASSES
) -> list[PlannedRequest]:
    """The same seed gives the same lengths and objectives; another `salt` other texts and ids.

    So that two runs of one workload share no prefix, and neither finds the other's in a cache.
    """
    objectives = random.Random(seed)
    texts = random.Random(f"{seed}/{salt}")
    planned = []
    for index, request in enumerate(trace):
        slo = objectives.choices(classes, [c.share for c in classes])[0]
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
                prompt=_text(texts, request.prompt_tokens * BYTES_PER_TOKEN - _TEMPLATE_BYTES),
            )
        )
    return planned


def _text(rng: random.Random, length: int) -> str:
    """Text that compresses to nothing that matters: words of a random word repeated behind a random beginning."""
    unique = "".join(rng.choices(string.ascii_lowercase, k=24)) + " "
    return (unique * (max(length, 1) // len(unique) + 1))[: max(length, 1)]
