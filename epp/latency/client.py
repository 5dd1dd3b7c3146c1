"""What every way of predicting offers."""

from typing import Protocol

from epp.features import FeatureMatrix
from epp.scheduling.snapshot import Predictions


class LatencyClient(Protocol):
    """Predicts both latencies for all candidates at once."""

    async def predict(self, rows: FeatureMatrix) -> Predictions:
        """One value a row; PredictionUnavailableError when there is none in time."""

    async def close(self) -> None: ...
