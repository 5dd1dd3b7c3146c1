"""What the demo does, phase by phase, and what it measures."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
# When a short warm-up brings too few samples for a model, it is followed by shorter ones.
_MORE_WARM_UPS, _MORE_WARM_UP_S = 6, 8.0
# How long a pass and its way to the predictors may take once the samples are there.
_PASS_S = 4.0


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
    stage = _Stage(config, narrator, rate, seconds / 4, seed)
    first_model = asyncio.create_task(_note_first_model(stage))
    try:
        sent = await _warm_up(stage, first_model)
        for phase in POLICIES:
            await stage.run(phase, stage.plan(sent, stage.quarter_s, seed + 1, phase.name), stage.quarter_s)
    finally:
        first_model.cancel()
    stage.story.generations = await _generations(config)
    stage.story.decisions = await _decisions(config)
    return stage.story


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where a story is told: the loop that runs, and the load that it is given."""

    config: StackConfig
    narrator: Narrator
    rate: float
    quarter_s: float
    seed: int
    trace: Sequence[TraceRequest] = field(
        default_factory=lambda: cap_lengths(load_trace(), MAX_PROMPT_TOKENS, MAX_OUTPUT_TOKENS)
    )
    story: Story = field(default_factory=Story)
    start: float = field(default_factory=time.monotonic)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.start

    def plan(self, first: int, span_s: float, seed: int, salt: str) -> list[PlannedRequest]:
        return plan(window(self.trace, first, self.rate, span_s), seed=seed, salt=salt)

    async def run(self, phase: Phase, planned: list[PlannedRequest], span_s: float) -> None:
        """Replays a phase's load, and returns when its last request has ended."""
        step = self.narrator.begin(phase.title, len(planned))
        started_s = self.now_s
        outcomes = await replay(
            self.config.gateway_url, planned, model=MODEL, headers=phase.headers, on_outcome=lambda outcome: step()
        )
        self.story.phases.append(PhaseResult(phase, started_s, span_s, outcomes))


async def _warm_up(stage: _Stage, first_model: "asyncio.Task[None]") -> int:
    """Load until there is a model, and for a quarter at least; returns how many requests that took."""
    sent, span_s = 0, stage.quarter_s
    for _ in range(1 + _MORE_WARM_UPS):
        load = stage.plan(sent, span_s, stage.seed, f"{WARM_UP} {sent}")
        await stage.run(WARM_UP_PHASE, load, span_s)
        sent, span_s = sent + len(load), _MORE_WARM_UP_S
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(first_model), timeout=_PASS_S)
            return sent
    raise LoopError(f"no model was published after {sent} requests, see {stage.config.folder / 'trainer.log'}")


async def _note_first_model(stage: _Stage) -> None:
    """Returns when every predictor that answers serves a generation."""
    while True:
        served = [await _get(f"{url}/status") for url in stage.config.predictor_urls]
        alive = [status for status in served if status is not None]
        if alive and all(status["is_ready"] for status in alive):
            stage.story.first_model_s = stage.now_s
            stage.narrator.say(f"first model published, and served by {len(alive)} predictors")
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
