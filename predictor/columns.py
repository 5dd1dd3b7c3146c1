"""The binary format of /predict/columns, for clients that send thousands of requests per second.

A request is a line of JSON that names features, `{"features": ["kv_cache_percentage", ...]}`, followed by the columns
of these features. Each number is a little-endian float32; NaN means unknown. An answer is a line of JSON,
`{"generation": 5}`, followed by the columns of TTFT and TPOT in ms. If the request's line has `"medians": true`, the
columns of both medians follow, provided that both models predict one.
"""

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_store import ROW_FEATURES, ROW_NAMES
from model_store.features import LARGEST_COUNT
from predictor.exceptions import InputError
from predictor.model import Array
from predictor.signature import Matrix

_NUMBER = np.dtype("<f4")
_LONGEST_HEAD_BYTES = 4096
_FILL = np.array([[feature.fill_value] for feature in ROW_FEATURES], dtype=np.float32)
_LOWEST = np.array([[feature.minimum] for feature in ROW_FEATURES], dtype=np.float32)
_HIGHEST = np.array([[LARGEST_COUNT if f.maximum is None else f.maximum] for f in ROW_FEATURES], dtype=np.float32)
_MAY_BE_MISSING = np.array([[feature.may_be_missing] for feature in ROW_FEATURES])


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    features: list[str]
    medians: bool = False


def read_columns(body: bytes, max_rows: int) -> tuple[Matrix, bool]:
    """Decode a body to columns [ROW_FEATURES, rows] and a flag: true if the client wants medians.

    Features that the body does not name get their defaults. Raise InputError that names the error.
    """
    end = body.find(b"\n", 0, _LONGEST_HEAD_BYTES)
    if end < 0:
        raise InputError("the body: expected a line of JSON that names features, followed by their columns")
    positions, medians = _read_head(body[:end])
    size_bytes, row_bytes = len(body) - end - 1, len(positions) * _NUMBER.itemsize
    if size_bytes % row_bytes:
        raise InputError(f"the body: {size_bytes} bytes of numbers are not whole rows of {row_bytes} bytes")
    count = size_bytes // row_bytes
    if not 1 <= count <= max_rows:
        raise InputError(f"expected 1 to {max_rows} rows, got {count}")
    columns = np.repeat(_FILL, count, axis=1)
    columns[positions] = np.frombuffer(body, _NUMBER, offset=end + 1).reshape(len(positions), count)
    _check(columns)
    return columns, medians


def write_columns(generation: int, latencies_ms: Sequence[Array]) -> bytes:
    """Encode an answer with one column per latency."""
    head = b'{"generation":%d}\n' % generation
    return head + b"".join(values.astype(_NUMBER).tobytes() for values in latencies_ms)


@lru_cache(maxsize=64)
def _read_head(head: bytes) -> tuple[NDArray[np.intp], bool]:
    """Return the positions of the named features in a full row, and true if the client wants medians."""
    try:
        read = msgspec.json.decode(head, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the body's first line: {error}") from error
    names = read.features
    unknown = next((name for name in names if name not in ROW_NAMES), None)
    if unknown is not None:
        raise InputError(f"{unknown:.100}: no such feature; known: {', '.join(ROW_NAMES)}")
    if len(set(names)) < len(names):
        raise InputError("features: a name occurs twice")
    missing = next((f.name for f in ROW_FEATURES if f.required and f.name not in names), None)
    if missing:
        raise InputError(f"{missing}: missing")
    return np.array([ROW_NAMES.index(name) for name in names]), read.medians


def _check(columns: Matrix) -> None:
    # A comparison with NaN is false, so NaN is out of range unless the feature may be missing.
    wrong = ~((columns >= _LOWEST) & (columns <= _HIGHEST) | (_MAY_BE_MISSING & np.isnan(columns)))
    if wrong.any():
        position, row = np.unravel_index(int(wrong.argmax()), wrong.shape)
        feature, value = ROW_FEATURES[int(position)], columns[position, row]
        span = f"from {feature.minimum:g}" + ("" if feature.maximum is None else f" to {feature.maximum:g}")
        raise InputError(f"{feature.name}: expected a number {span}, got {value:g} in row {row}")
