"""When a pass runs: at most once an interval, only with something new, never on the event loop."""

import asyncio
import logging
from collections import deque

import xgboost as xgb

from model_store import ModelStore, StoreError
from trainer.graph import Graph
from trainer.metrics import Metrics
from trainer.training_pass import PassResult, PassSettings, read_served, run_pass
from trainer.window import Window

logger = logging.getLogger("headroom.trainer")

_REMEMBERED = 10
# After these a pass is worth trying again even when no sample is new.
_TRIED_AGAIN = ("failed", "standby")
# And these say nothing of a model.
_NOT_REFUSALS = ("too_few_samples", "standby")


class Retraining:
    """The loop, and what is known of its last passes."""

    def __init__(
        self, window: Window, store: ModelStore, metrics: Metrics, settings: PassSettings, interval_s: float
    ) -> None:
        self._window = window
        self._store = store
        self._metrics = metrics
        self._settings = settings
        self._interval_s = interval_s
        self.served: dict[str, Graph] = {}
        self.boosters: dict[str, xgb.Booster] = {}
        self._fitted_version = 0
        self.generation: int | None = None
        self.last_pass: PassResult | None = None
        self.refused: deque[PassResult] = deque(maxlen=_REMEMBERED)

    @property
    def ready(self) -> bool:
        return self.generation is not None

    async def run(self) -> None:
        """Passes until cancelled."""
        await self._read_served()
        while True:
            await asyncio.sleep(self._interval_s)
            version = self._window.version
            if version == self._fitted_version:
                continue
            result = await self._pass()
            self._note(result)
            if result.outcome not in _TRIED_AGAIN:
                self._fitted_version = version

    async def _read_served(self) -> None:
        """A restarted trainer goes on from the generation in force; a damaged one is replaced by the next."""
        try:
            generation, self.served = await asyncio.to_thread(read_served, self._store)
        except StoreError as error:
            logger.error("can't read the generation in force: %s", error)
            return
        if generation is not None:
            self.generation = generation.generation
            logger.info("going on from generation %d", self.generation)

    async def _pass(self) -> PassResult:
        data = {name: target.data() for name, target in self._window.targets.items()}
        try:
            return await asyncio.to_thread(run_pass, data, self.served, self._store, self._settings)
        except Exception as error:  # whatever a library raises costs this pass, and not the trainer
            logger.exception("a training pass failed")
            return PassResult("failed", f"{type(error).__name__}: {error}")

    def _note(self, result: PassResult) -> None:
        if result.outcome not in _NOT_REFUSALS or self.last_pass is None or self.last_pass.outcome != result.outcome:
            logger.info("pass: %s%s %s", result.outcome, f" {result.generation or ''}".rstrip(), result.reason)
        self.last_pass = result
        self._metrics.passed(result)
        self.served |= {name: candidate.graph for name, candidate in result.published.items()}
        self.boosters |= {name: candidate.booster for name, candidate in result.published.items()}
        self.generation = result.generation or self.generation
        if result.reason and result.outcome not in _NOT_REFUSALS:
            self.refused.append(result)
