"""The sidecar API's requests and answers, as its clients know them."""

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
    """A batch is answered whole or refused whole, so there are never single errors to list."""

    errors: list[str] = []
