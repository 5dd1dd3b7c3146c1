"""The interface of a client for latency predictions."""

from collections.abc import Awaitable
from typing import Protocol

from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Predictions


class LatencyClient(Protocol):
    """Predicts both latencies for all candidates at once."""

    def predict(self, columns: FeatureColumns) -> Predictions | Awaitable[Predictions]:
        """Predict one value per candidate, at once or awaitable; PredictionUnavailableError without a timely answer."""

    async def close(self) -> None: ...
