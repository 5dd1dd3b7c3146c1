"""The demo's course: it runs the phases and collects the measurements."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from headroom.processes.exceptions import PartError
from lab.loop.configure import configure
from lab.loop.live_figures import LiveFigures
from lab.loop.load import OfferedLoad
from lab.loop.policies import WARM_UP, WARM_UP_PHASE, Phase
from lab.loop.stack import MODEL, StackConfig
from simulator.load.replay import replay
from simulator.outcome import Outcome
from simulator.workload import PlannedRequest
from simulator.workloads.texts import sendable

# Additional warm-ups, and their seconds, for when the first warm-up has too few samples for a model.
_MORE_WARM_UPS, _MORE_WARM_UP_S = 6, 8.0
# Seconds to wait for a training pass and for the predictors to load its models, once there are enough samples.
_PASS_S = 4.0


class Narrator(Protocol):
    """Shows the demo's progress."""

    def begin(self, title: str, total: int) -> Callable[[], None]:
        """Begin a task of `total` steps. The caller calls the returned function at each step."""

    def say(self, text: str) -> None:
        """Show a message."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """The outcomes of a phase. `started_s` counts from the demo's start; requests arrived over `span_s`."""

    phase: Phase
    started_s: float
    span_s: float
    outcomes: Sequence[Outcome]


@dataclass(slots=True)
class Story:
    """Everything that was measured in the demo."""

    phases: list[PhaseResult] = field(default_factory=list)
    first_model_s: float | None = None
    generations: int = 0
    decisions: list[dict[str, Any]] = field(default_factory=list)


async def run_story(
    config: StackConfig,
    narrator: Narrator,
    load: OfferedLoad,
    policies: Sequence[Phase],
    *,
    phase_s: float,
    seed: int,
    comparison: LiveFigures | None = None,
) -> Story:
    """Run the warm-up until there is a model, then the same load under each policy, each for `phase_s`.

    `comparison` shows the policies' figures while they run.
    """
    requests = [round(load.requests_per_s * phase.share * phase_s) for phase in (WARM_UP_PHASE, *policies)]
    step_of_all = narrator.begin("all requests", sum(requests))
    stage = _Stage(config, narrator, load, phase_s, seed, step_of_all, comparison)
    first_model = asyncio.create_task(_note_first_model(stage))
    try:
        await _warm_up(stage, first_model)
        for phase in policies:
            await stage.run(phase, stage.plan(seed + 1, phase_s, phase.name, phase.share), phase_s)
    finally:
        first_model.cancel()
    stage.story.generations = await _generations(config)
    stage.story.decisions = await _decisions(config)
    return stage.story


@dataclass(frozen=True, slots=True)
class _Stage:
    """The state of a demo: the running loop, its load, and the measurements so far."""

    config: StackConfig
    narrator: Narrator
    load: OfferedLoad
    phase_s: float
    seed: int
    step_of_all: Callable[[], None]
    comparison: LiveFigures | None
    story: Story = field(default_factory=Story)
    start: float = field(default_factory=time.monotonic)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.start

    def plan(self, seed: int, span_s: float, salt: str, share: float = 1.0) -> list[PlannedRequest]:
        return sendable(self.load.at(share).scenario(seed, span_s), salt)

    async def run(self, phase: Phase, planned: list[PlannedRequest], span_s: float) -> None:
        """Replay a phase's load, and return when its last request has ended."""
        if phase.configuration is not None:
            await configure(self.config, phase.configuration)
        step = self.narrator.begin(phase.title, len(planned))

        def note(outcome: Outcome) -> None:
            step()
            self.step_of_all()
            if self.comparison is not None:
                self.comparison.note(outcome)

        started_s = self.now_s
        if self.comparison is not None:
            self.comparison.begin(phase.name)
        outcomes = await replay(self.config.gateway_url, planned, model=MODEL, headers=phase.headers, on_outcome=note)
        if self.comparison is not None:
            self.comparison.end()
        self.story.phases.append(PhaseResult(phase, started_s, span_s, outcomes))


async def _warm_up(stage: _Stage, first_model: "asyncio.Task[None]") -> None:
    """Send load for one phase, and then until there is a model."""
    sent, span_s = 0, stage.phase_s
    for number in range(1 + _MORE_WARM_UPS):
        planned = stage.plan(stage.seed, span_s, f"{WARM_UP} {number}")
        await stage.run(WARM_UP_PHASE, planned, span_s)
        sent, span_s = sent + len(planned), _MORE_WARM_UP_S
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(first_model), timeout=_PASS_S)
            return
    raise PartError(f"no model was published after {sent} requests, see {stage.config.folder / 'trainer.log'}")


async def _note_first_model(stage: _Stage) -> None:
    """Wait until every predictor that answers serves a model, and record the time."""
    while True:
        served = [await _get(f"{url}/status") for url in stage.config.predictor_urls]
        alive = [status for status in served if status is not None]
        if alive and all(status["is_ready"] for status in alive):
            stage.story.first_model_s = stage.now_s
            stage.narrator.say(f"first model published; {len(alive)} predictors serve it")
            return
        await asyncio.sleep(0.2)


async def _generations(config: StackConfig) -> int:
    """Return the latest generation that a predictor serves. The trainer isn't asked: it may have been killed."""
    served = [await _get(f"{url}/status") for url in config.predictor_urls]
    return max((status["generation"] or 0 for status in served if status), default=0)


async def _decisions(config: StackConfig) -> list[dict[str, Any]]:
    answer = await _get(f"{config.picker_url}/debug/decisions?limit=10000&candidates=false")
    decisions: list[dict[str, Any]] = answer["decisions"] if answer else []
    return decisions


async def _get(url: str) -> dict[str, Any] | None:
    """Return the JSON at a URL; None if there is no answer."""
    try:
        async with aiohttp.request("GET", url, timeout=aiohttp.ClientTimeout(total=10)) as response:
            answer: dict[str, Any] = await response.json()
            return answer
    except (aiohttp.ClientError, TimeoutError):
        return None
