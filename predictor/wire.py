"""The request and response messages of the sidecar API."""

from datetime import datetime

import msgspec

from model_store import FeatureRow


class BulkRequest(msgspec.Struct, frozen=True):
    requests: list[FeatureRow]


class PredictionResponse(msgspec.Struct, frozen=True):
    ttft_ms: float
    tpot_ms: float
    predicted_at: datetime
    model_type: str
    objective_type: str
    quantile: float | None
    last_model_load: datetime


class StrictBulkResponse(msgspec.Struct, frozen=True):
    predictions: list[PredictionResponse]
    total_requests: int
    successful_predictions: int
    failed_predictions: int
    processing_time_ms: float
    generation: int


class BulkResponse(StrictBulkResponse, frozen=True):
    """The answer of /predict/bulk. A batch is answered whole or refused whole, so `errors` is always empty."""

    errors: list[str] = []
