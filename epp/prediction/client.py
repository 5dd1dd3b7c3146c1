"""What every way of predicting offers."""

from collections.abc import Awaitable
from typing import Protocol

from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Predictions


class LatencyClient(Protocol):
    """Predicts both latencies for all candidates at once."""

    def predict(self, columns: FeatureColumns) -> Predictions | Awaitable[Predictions]:
        """One value a candidate, at once or later; PredictionUnavailableError when there is none in time."""

    async def close(self) -> None: ...
