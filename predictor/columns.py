"""Rows and predictions as plain numbers, for who asks thousands of times a second.

A request is a line of JSON that names features, `{"features": ["kv_cache_percentage", ...]}`, and behind it their
columns one after the other, each number a little-endian float32, NaN where nothing is known. An answer is a line of
JSON, `{"generation": 5}`, and behind it the columns of TTFT and TPOT in ms, likewise. To `"medians": true` beside the
features those of the medians of both follow, where the models have one.
"""

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_store import ROW_FEATURES, ROW_NAMES
from predictor.exceptions import InputError
from predictor.model import Array
from predictor.signature import Matrix

_NUMBER = np.dtype("<f4")
_LONGEST_HEAD_BYTES = 4096
_LARGEST = 2.0**53
_FILL = np.array([[feature.fill_value] for feature in ROW_FEATURES], dtype=np.float32)
_LOWEST = np.array([[feature.minimum] for feature in ROW_FEATURES], dtype=np.float32)
_HIGHEST = np.array([[_LARGEST if f.maximum is None else f.maximum] for f in ROW_FEATURES], dtype=np.float32)
_MAY_BE_MISSING = np.isnan(_FILL) & np.array([[not feature.required] for feature in ROW_FEATURES])


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    features: list[str]
    medians: bool = False


def read_columns(body: bytes, max_rows: int) -> tuple[Matrix, bool]:
    """[ROW_FEATURES, rows], and whether medians are asked for.

    Features that are not named have their defaults. InputError names what is wrong.
    """
    end = body.find(b"\n", 0, _LONGEST_HEAD_BYTES)
    if end < 0:
        raise InputError("the body: expected a line of JSON that names features, and their columns behind it")
    positions, medians = _read_head(body[:end])
    size_bytes, row_bytes = len(body) - end - 1, len(positions) * _NUMBER.itemsize
    if size_bytes % row_bytes:
        raise InputError(f"the body: {size_bytes} bytes of numbers are no whole rows of {row_bytes} bytes")
    count = size_bytes // row_bytes
    if not 1 <= count <= max_rows:
        raise InputError(f"expected 1 to {max_rows} rows, got {count}")
    columns = np.repeat(_FILL, count, axis=1)
    columns[positions] = np.frombuffer(body, _NUMBER, offset=end + 1).reshape(len(positions), count)
    _check(columns)
    return columns, medians


def write_columns(generation: int, latencies_ms: Sequence[Array]) -> bytes:
    """The answer: a column each."""
    head = b'{"generation":%d}\n' % generation
    return head + b"".join(values.astype(_NUMBER).tobytes() for values in latencies_ms)


@lru_cache(maxsize=64)
def _read_head(head: bytes) -> tuple[NDArray[np.intp], bool]:
    """Where the named features are in a full row, and whether medians are asked for."""
    try:
        read = msgspec.json.decode(head, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the body's first line: {error}") from error
    names = read.features
    unknown = next((name for name in names if name not in ROW_NAMES), None)
    if unknown is not None:
        raise InputError(f"{unknown:.100}: no such feature; there are {', '.join(ROW_NAMES)}")
    if len(set(names)) < len(names):
        raise InputError("features: one is named twice")
    missing = next((f.name for f in ROW_FEATURES if f.required and f.name not in names), None)
    if missing:
        raise InputError(f"{missing}: missing")
    return np.array([ROW_NAMES.index(name) for name in names]), read.medians


def _check(columns: Matrix) -> None:
    # NaN is within no range.
    wrong = ~((columns >= _LOWEST) & (columns <= _HIGHEST) | (_MAY_BE_MISSING & np.isnan(columns)))
    if wrong.any():
        position, row = np.unravel_index(int(wrong.argmax()), wrong.shape)
        feature, value = ROW_FEATURES[int(position)], columns[position, row]
        span = f"from {feature.minimum:g}" + ("" if feature.maximum is None else f" to {feature.maximum:g}")
        raise InputError(f"{feature.name}: expected a number {span}, got {value:g} in row {row}")
