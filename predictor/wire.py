"""The sidecar API's requests and answers, as its clients know them."""

from datetime import datetime
from typing import Annotated

import msgspec

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class PredictionRequest(msgspec.Struct, frozen=True):
    """One row. Unknown fields are ignored, so that newer clients are understood."""

    kv_cache_percentage: Fraction
    input_token_length: Count
    num_request_waiting: Count
    num_request_running: Count
    num_tokens_generated: Count
    prefix_cache_score: Fraction
    prefill_tokens_in_flight: Count = 0
    decode_tokens_in_flight: Count = 0
    encoder_matched_size: Count = 0
    encoder_input_size: Count = 0
    pod_type: str | None = None
    recent_prefill_ms_per_token: Milliseconds | None = None
    recent_tpot_ms: Milliseconds | None = None


class BulkRequest(msgspec.Struct, frozen=True):
    requests: list[PredictionRequest]


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
