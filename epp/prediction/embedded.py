"""Predictions in the picker's own process: the predictor's engine, following the same model store."""

import asyncio
from collections.abc import Mapping

import numpy as np

from epp.exceptions import PredictionUnavailableError
from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Predictions
from model_store import Trust, open_store
from predictor.engine import Engine
from predictor.latency_pair import LatencyPair
from predictor.opener import Opener
from predictor.repository import Repository
from predictor.trial import Trials


class EmbeddedLatencyClient:
    """Predicts in process, without waiting. Other threads load new models from the store and swap them in."""

    def __init__(self, location: str, sync_interval_s: float, verify_key_file: str = "") -> None:
        self._engine = Engine()
        self._pair = LatencyPair(self._engine)
        store = open_store(location, Trust(verify_key_file=verify_key_file))
        self._repository = Repository(store, self._engine, opener=Opener(trials=Trials()))
        self._location = location
        self._sync_interval_s = sync_interval_s
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load models from the store and begin to poll it. An empty store is no error, since it may be filled later."""
        await self._repository.start()
        self._polling = asyncio.create_task(self._repository.run(self._sync_interval_s))

    @property
    def generation(self) -> int:
        """The generation of the loaded models; 0 while none are loaded."""
        loaded = self._pair.loaded()
        return loaded.generation if loaded else 0

    @property
    def refusals(self) -> Mapping[str, int]:
        """The number of failed attempts to load new models, by what refused them."""
        return self._repository.refusals

    def predict(self, columns: FeatureColumns) -> Predictions:
        loaded = self._pair.loaded()
        if loaded is None:
            reason = self._repository.last_error or "nothing has been published yet"
            raise PredictionUnavailableError(f"no models of both latencies in {self._location}: {reason}")
        ttft_ms, tpot_ms, *medians_ms = loaded.predict(columns)
        if not all(np.isfinite(values).all() for values in (ttft_ms, tpot_ms, *medians_ms)):
            raise PredictionUnavailableError(f"generation {loaded.generation} predicted a number that is not finite")
        return Predictions(ttft_ms, tpot_ms, loaded.generation, "embedded", *medians_ms)

    async def close(self) -> None:
        if self._polling:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        await self._repository.close()
