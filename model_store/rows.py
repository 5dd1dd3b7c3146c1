"""A row of features as it travels in JSON and MessagePack, and the matrix that many of them make."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_store.features import POD_TYPE_CODES, ROW_FEATURES

Matrix = NDArray[np.float32]

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class FeatureRow(msgspec.Struct, frozen=True, kw_only=True):
    """The raw features by their names. Unknown fields are ignored, so that newer clients are understood."""

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


ROW_NAMES = tuple(feature.name for feature in ROW_FEATURES)
_POD_TYPE = ROW_NAMES.index("pod_type")
_values = attrgetter(*ROW_NAMES)


def row_matrix(rows: Sequence[FeatureRow]) -> Matrix:
    """[rows, ROW_FEATURES]; a role becomes its code, and what is missing NaN."""
    if not rows:
        return np.empty((0, len(ROW_NAMES)), dtype=np.float32)
    columns = list(zip(*map(_values, rows), strict=True))
    columns[_POD_TYPE] = tuple(map(POD_TYPE_CODES.get, columns[_POD_TYPE]))
    # float64 first, since that is how numpy takes None for NaN.
    return np.array(columns, dtype=np.float64).T.astype(np.float32)
