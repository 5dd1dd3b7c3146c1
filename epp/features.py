"""From a snapshot to the rows that the latency models read."""

import numpy as np
from numpy.typing import NDArray

from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Snapshot
from model_store import ROW_FEATURES

FeatureMatrix = NDArray[np.float32]
NAMES = tuple(feature.name for feature in ROW_FEATURES)


def feature_matrix(request: Request, pool: Snapshot) -> FeatureMatrix:
    """Shape [candidates, features], columns in the order of ROW_FEATURES; NaN where nothing is known."""
    columns: dict[str, Floats | float] = {
        "kv_cache_percentage": pool.kv_usage,
        "input_token_length": request.input_tokens,
        "num_request_waiting": pool.waiting,
        "num_request_running": pool.running,
        "num_tokens_generated": 0,
        "prefix_cache_score": pool.prefix_score,
        "prefill_tokens_in_flight": pool.prefill_tokens,
        "decode_tokens_in_flight": pool.decode_tokens,
        "encoder_matched_size": 0,
        "encoder_input_size": 0,
        "pod_type": np.nan,
        "recent_prefill_ms_per_token": pool.recent_prefill_ms_per_token,
        "recent_tpot_ms": pool.recent_tpot_ms,
    }
    matrix = np.empty((len(pool), len(NAMES)), dtype=np.float32)
    for index, name in enumerate(NAMES):
        matrix[:, index] = columns[name]
    return matrix
