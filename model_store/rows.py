"""The feature row of JSON and MessagePack messages, and its conversion to a matrix."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_store.features import POD_TYPE_CODES, ROW_FEATURES

Matrix = NDArray[np.float32]

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
# The limits are far above any real value, and far below the largest float32.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class FeatureRow(msgspec.Struct, frozen=True, kw_only=True):
    """The raw features of one request on one endpoint. Unknown fields are ignored, so newer clients are accepted."""

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
    ms_since_token: Milliseconds | None = None


ROW_NAMES = tuple(feature.name for feature in ROW_FEATURES)
_POD_TYPE = ROW_NAMES.index("pod_type")
_MAY_BE_NONE = {index for index, feature in enumerate(ROW_FEATURES) if isinstance(feature.default, str)}
_values = attrgetter(*ROW_NAMES)


def row_columns(rows: Sequence[FeatureRow]) -> Matrix:
    """Return the rows as float32 [ROW_FEATURES, rows]; `pod_type` becomes its code, a missing value NaN."""
    columns = np.empty((len(ROW_NAMES), len(rows)), dtype=np.float32)
    for index, values in enumerate(zip(*map(_values, rows), strict=True)):
        if index not in _MAY_BE_NONE:
            columns[index] = np.fromiter(values, np.float32, len(rows))
        elif values.count(None) == len(rows):
            columns[index] = np.nan
        else:
            known = tuple(map(POD_TYPE_CODES.get, values)) if index == _POD_TYPE else values
            # numpy converts None to NaN only for float64.
            columns[index] = np.array(known, dtype=np.float64)
    return columns


def row_matrix(rows: Sequence[FeatureRow]) -> Matrix:
    """Return the rows as float32 [rows, ROW_FEATURES]; see `row_columns`."""
    return np.ascontiguousarray(row_columns(rows).T)
