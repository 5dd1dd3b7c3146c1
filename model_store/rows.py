"""The feature row of JSON and MessagePack messages, and its conversion to a matrix."""

import math
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.features import POD_TYPE_CODES, ROW_FEATURES, ROW_NAMES, Feature, FeatureRow

Matrix = NDArray[np.float32]

# No time that a request has to do with is longer than an hour: gateways give up sooner.
LONGEST_MS = 3_600_000.0
# No count of tokens, requests or items on one endpoint is larger.
_LARGEST_COUNT = 1e8

_values = attrgetter(*ROW_NAMES)


def row_columns(rows: Sequence[FeatureRow]) -> Matrix:
    """Return the rows as float32 [ROW_FEATURES, rows]; `pod_type` becomes its code, a missing value NaN."""
    columns = np.empty((len(ROW_NAMES), len(rows)), dtype=np.float32)
    for index, values in enumerate(zip(*map(_values, rows), strict=True)):
        columns[index] = _FROM_WIRE[index](values)
    return columns


def row_matrix(rows: Sequence[FeatureRow]) -> Matrix:
    """Return the rows as float32 [rows, ROW_FEATURES]; see `row_columns`."""
    return np.ascontiguousarray(row_columns(rows).T)


def is_possible(rows: Matrix) -> NDArray[np.bool_]:
    """Return for each of `rows` [rows, ROW_FEATURES] whether all values are physically possible on an endpoint.

    The fields' types allow more, so that a client's mistake in one row does not cost the batch.
    """
    possible: NDArray[np.bool_] = (rows > _LIMITS).sum(axis=1) == 0
    return possible


def row_values(columns: Matrix) -> Iterator[tuple[Any, ...]]:
    """Yield the fields of each row of float32 [ROW_FEATURES, rows]. Counts become ints, roles texts, NaN None."""
    return zip(*(of(column.tolist()) for of, column in zip(_TO_WIRE, columns, strict=True)), strict=True)


def _from_wire(feature: Feature) -> Callable[[tuple[Any, ...]], NDArray[Any] | float]:
    if feature.is_role:
        return _codes
    return _numbers_or_nan if feature.may_be_missing else _numbers


def _numbers(values: tuple[Any, ...]) -> NDArray[np.float32]:
    return np.fromiter(values, np.float32, len(values))


def _numbers_or_nan(values: tuple[Any, ...]) -> NDArray[np.float64] | float:
    if values.count(None) == len(values):
        return np.nan
    # numpy converts None to NaN only for float64.
    return np.array(values, dtype=np.float64)


def _codes(values: tuple[Any, ...]) -> NDArray[np.float64] | float:
    return _numbers_or_nan(tuple(map(POD_TYPE_CODES.get, values)))


def _to_wire(feature: Feature) -> Callable[[list[float]], list[Any]]:
    if feature.is_role:
        return _roles
    if feature.is_count:
        return _counts_or_none if feature.may_be_missing else _counts
    return _known_or_none if feature.may_be_missing else list


def _counts(values: list[float]) -> list[int]:
    return [round(value) for value in values]


def _counts_or_none(values: list[float]) -> list[int | None]:
    return [None if math.isnan(value) else round(value) for value in values]


def _known_or_none(values: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


_ROLES = {code: role for role, code in POD_TYPE_CODES.items()}


def _roles(values: list[float]) -> list[str | None]:
    return [_ROLES.get(value) for value in values]


def _limit(feature: Feature) -> float:
    if feature.is_time:
        return LONGEST_MS
    return _LARGEST_COUNT if feature.is_count else math.inf


_LIMITS = np.array([_limit(feature) for feature in ROW_FEATURES], dtype=np.float32)
_FROM_WIRE = tuple(map(_from_wire, ROW_FEATURES))
_TO_WIRE = tuple(map(_to_wire, ROW_FEATURES))
