"""Following the model store: look for another generation now and then, load it off the request path, swap."""

import asyncio
import logging
from collections.abc import Hashable
from dataclasses import dataclass

from model_store import Generation, ModelStore, StoreError
from predictor.engine import Engine, load
from predictor.exceptions import ModelError
from predictor.metrics import Metrics

logger = logging.getLogger("headroom.predictor")


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What one look at the store brought: `synced` a new generation was found, `loaded` it is being served."""

    synced: bool
    loaded: bool


class Sync:
    """One poller. A generation that can't be loaded leaves the old one serving, and is tried again at each look."""

    def __init__(self, store: ModelStore, engine: Engine, metrics: Metrics, interval_s: float) -> None:
        self._store = store
        self._engine = engine
        self._metrics = metrics
        self._interval_s = interval_s
        self._seen: Hashable = None
        self._lock = asyncio.Lock()
        self.last_error: str | None = None

    async def run(self) -> None:
        """Polls until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval_s)

    async def look(self) -> SyncResult:
        """Looks once, and loads what is new."""
        async with self._lock:
            try:
                result = await asyncio.to_thread(self._look)
            except (StoreError, ModelError) as error:
                self._failed(str(error))
                return SyncResult(synced=True, loaded=False)
            if self.last_error and (result.loaded or not result.synced):
                logger.info("the model store is in order again")
                self.last_error = None
            return result

    def _look(self) -> SyncResult:
        # The stamp is taken first: whatever is published while the models load is found at the next look.
        stamp = self._store.stamp()
        self._metrics.polls.inc()
        if stamp == self._seen:
            return SyncResult(synced=False, loaded=False)
        generation = self._store.current()
        if generation is None:
            self._seen = stamp
            return SyncResult(synced=False, loaded=False)
        self._swap(generation)
        self._seen = stamp
        return SyncResult(synced=True, loaded=True)

    def _swap(self, generation: Generation) -> None:
        before = self._engine.loaded
        loaded = load(self._store, generation, before)
        self._engine.loaded = loaded
        self._metrics.loads.labels("ok").inc()
        logger.info(
            "serving generation %d%s",
            generation.generation,
            f", before {before.generation.generation}" if before else "",
        )

    def _failed(self, reason: str) -> None:
        self._metrics.loads.labels("failed").inc()
        if reason != self.last_error:
            logger.error("can't load the newest generation, the old one keeps serving: %s", reason)
        self.last_error = reason
