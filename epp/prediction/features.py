"""Build the features of the latency models from a request and a snapshot."""

import numpy as np
from numpy.typing import NDArray

from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Snapshot
from model_store import ROW_FEATURES, ROW_NAMES

FeatureColumns = NDArray[np.float32]

_TIMES = [index for index, feature in enumerate(ROW_FEATURES) if feature.is_time]


def feature_columns(request: Request, candidates: Snapshot, tokens_generated: int = 0) -> FeatureColumns:
    """Return features of shape [features, candidates], in the order of ROW_FEATURES; NaN where a value is unknown."""
    values: dict[str, Floats | float] = {
        "kv_cache_percentage": candidates.kv_usage,
        "input_token_length": request.input_tokens,
        "num_request_waiting": candidates.waiting,
        "num_request_running": candidates.running,
        "num_tokens_generated": tokens_generated,
        "prefix_cache_score": candidates.prefix_score,
        "prefill_tokens_in_flight": candidates.prefill_tokens,
        "decode_tokens_in_flight": candidates.decode_tokens,
        "encoder_matched_size": 0,
        "encoder_input_size": request.media_items,
        "pod_type": candidates.role,
        "recent_prefill_ms_per_token": candidates.recent_prefill_ms_per_token,
        "recent_tpot_ms": candidates.recent_tpot_ms,
        "ms_since_token": candidates.ms_since_token,
    }
    columns = np.empty((len(ROW_NAMES), len(candidates)), dtype=np.float32)
    for index, name in enumerate(ROW_NAMES):
        columns[index] = values[name]
    return columns


def without_slowdown(columns: FeatureColumns, slowdown: Floats) -> FeatureColumns:
    """Return the features with all times divided by these factors; a copy unless all factors are 1."""
    if (slowdown == 1).all():
        return columns
    columns = columns.copy()
    columns[_TIMES] /= slowdown
    return columns
