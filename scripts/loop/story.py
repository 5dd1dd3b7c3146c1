"""What the demo does, phase by phase, and what it measures."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from scripts.loop.envoy import POLICY_HEADER, ROUND_ROBIN
from scripts.loop.exceptions import LoopError
from scripts.loop.stack import MODEL, StackConfig
from simulator.load import Outcome, replay
from simulator.trace import TraceRequest, cap_lengths, load_trace, window
from simulator.workload import PlannedRequest, plan

PREDICTION_HEADER = "x-prediction-based-scheduling"
# Longer requests of the trace are cut to these, so that a phase of some ten seconds sees them end.
MAX_PROMPT_TOKENS, MAX_OUTPUT_TOKENS = 2_000, 120
WARM_UP = "warm-up"
_MODEL_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of load: every policy gets the same arrivals, lengths and objectives, in texts of its own."""

    name: str
    title: str
    headers: Mapping[str, str]


WARM_UP_PHASE = Phase(WARM_UP, "warm-up (profile default)", {PREDICTION_HEADER: "false"})
POLICIES = (
    Phase("round-robin", "load, round-robin", {POLICY_HEADER: ROUND_ROBIN}),
    Phase("default", "load, profile default", {PREDICTION_HEADER: "false"}),
    Phase("slo", "load, profile slo", {PREDICTION_HEADER: "true"}),
)


class Narrator(Protocol):
    """Who tells the story while it happens."""

    def begin(self, title: str, total: int) -> Callable[[], None]:
        """A stretch of `total` steps begins; call the answer at each step."""

    def say(self, text: str) -> None:
        """Something happened."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """`started_s` is the phase's place in the story; `span_s` the time over which its requests arrived."""

    phase: Phase
    started_s: float
    span_s: float
    outcomes: Sequence[Outcome]


@dataclass(slots=True)
class Story:
    """All that happened."""

    phases: list[PhaseResult] = field(default_factory=list)
    first_model_s: float | None = None
    generations: int = 0
    decisions: list[dict[str, Any]] = field(default_factory=list)


async def tell(config: StackConfig, narrator: Narrator, *, seconds: float, rate: float, seed: int) -> Story:
    """Warm-up, the first model, then the same load under each policy; a quarter of `seconds` for each."""
    start = time.monotonic()
    story, quarter_s = Story(), seconds / 4
    trace = cap_lengths(load_trace(), MAX_PROMPT_TOKENS, MAX_OUTPUT_TOKENS)
    first_model = asyncio.create_task(_note_first_model(config, story, narrator, start))
    try:
        warm_up = _plan(trace, 0, rate, quarter_s, seed, WARM_UP)
        story.phases.append(await _run(config, narrator, WARM_UP_PHASE, warm_up, quarter_s, start))
        async with asyncio.timeout(_MODEL_WAIT_S):
            await first_model
        for phase in POLICIES:
            load = _plan(trace, len(warm_up), rate, quarter_s, seed + 1, phase.name)
            story.phases.append(await _run(config, narrator, phase, load, quarter_s, start))
    except TimeoutError as error:
        raise LoopError(
            f"no model was published within {_MODEL_WAIT_S:g} s after the warm-up: {config.folder}/trainer.log"
        ) from error
    finally:
        first_model.cancel()
    story.generations = await _generations(config)
    story.decisions = await _decisions(config)
    return story


def _plan(
    trace: Sequence[TraceRequest], first: int, rate: float, seconds: float, seed: int, salt: str
) -> list[PlannedRequest]:
    return plan(window(trace, first, rate, seconds), seed=seed, salt=salt)


async def _run(
    config: StackConfig, narrator: Narrator, phase: Phase, planned: list[PlannedRequest], span_s: float, start: float
) -> PhaseResult:
    """Replays a phase's load, and returns when its last request has ended."""
    step = narrator.begin(phase.title, len(planned))
    started_s = time.monotonic() - start
    outcomes = await replay(
        config.gateway_url, planned, model=MODEL, headers=phase.headers, on_outcome=lambda outcome: step()
    )
    return PhaseResult(phase, started_s, span_s, outcomes)


async def _note_first_model(config: StackConfig, story: Story, narrator: Narrator, start: float) -> None:
    """Returns when every predictor that answers serves a generation."""
    while True:
        served = [await _get(f"{url}/status") for url in config.predictor_urls]
        alive = [status for status in served if status is not None]
        if alive and all(status["is_ready"] for status in alive):
            story.first_model_s = time.monotonic() - start
            narrator.say(f"first model published, and served by {len(alive)} predictors")
            return
        await asyncio.sleep(0.2)


async def _generations(config: StackConfig) -> int:
    """As many as a predictor has seen go by; the trainer may have been killed."""
    served = [await _get(f"{url}/status") for url in config.predictor_urls]
    return max((status["generation"] or 0 for status in served if status), default=0)


async def _decisions(config: StackConfig) -> list[dict[str, Any]]:
    answer = await _get(f"{config.picker_url}/debug/decisions?limit=10000&candidates=false")
    decisions: list[dict[str, Any]] = answer["decisions"] if answer else []
    return decisions


async def _get(url: str) -> dict[str, Any] | None:
    """The JSON at a URL; None when nobody answers."""
    try:
        async with aiohttp.request("GET", url, timeout=aiohttp.ClientTimeout(total=10)) as response:
            answer: dict[str, Any] = await response.json()
            return answer
    except (aiohttp.ClientError, TimeoutError):
        return None
