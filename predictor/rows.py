"""Decoding of /v1 bodies, with one row, many rows or columns of named features, to a model's input columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from model_store import Feature
from predictor.exceptions import InputError
from predictor.signature import Matrix

_NUMBERS = {int, float}
_NUMBERS_OR_NONE = {int, float, type(None)}


def read_rows(body: bytes, features: Sequence[Feature], max_rows: int) -> tuple[Matrix, bool]:
    """Decode a body to a matrix [features, rows] and a flag: true if it was one flat row. Raise InputError.

    A body is `{"feature": number, ...}`, `{"rows": [{...}, ...]}` or `{"columns": {"feature": [...], ...}}`. In columns
    a single number means a constant column.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise InputError("the body is nested too deeply") from error
    if not isinstance(document, dict):
        raise InputError(f"the body: expected an object, got {type(document).__name__}")
    if "rows" in document:
        return _from_rows(_only(document, "rows"), features, max_rows), False
    if "columns" in document:
        return _from_columns(_only(document, "columns"), features, max_rows), False
    return _from_rows([document], features, max_rows), True


def _only(document: Mapping[str, Any], key: str) -> Any:
    others = sorted(set(document) - {key})
    if others:
        raise InputError(f"{others[0]}: not expected together with {key}")
    return document[key]


def _from_rows(rows: Any, features: Sequence[Feature], max_rows: int) -> Matrix:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError("rows: expected an array of objects")
    _check_count(len(rows), max_rows, "rows")
    known = {feature.name for feature in features}
    for index, row in enumerate(rows):
        if row.keys() - known:
            raise InputError(_unknown(min(row.keys() - known), known, f"row {index}: " if len(rows) > 1 else ""))
    columns = {
        feature.name: [row.get(feature.name, feature.fill_value) for row in rows]
        for feature in features
        if any(feature.name in row for row in rows)
    }
    for feature in features:
        if feature.required:
            absent = next((index for index, row in enumerate(rows) if feature.name not in row), None)
            if absent is not None:
                raise InputError(f"{feature.name}: missing" + (f" in row {absent}" if len(rows) > 1 else ""))
    return _matrix(columns, features, len(rows))


def _from_columns(columns: Any, features: Sequence[Feature], max_rows: int) -> Matrix:
    if not isinstance(columns, dict):
        raise InputError("columns: expected an object of arrays")
    known = {feature.name for feature in features}
    if columns.keys() - known:
        raise InputError(_unknown(min(columns.keys() - known), known, ""))
    lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
    if len(set(lengths.values())) > 1:
        raise InputError(f"columns: the columns have different lengths: {lengths}")
    count = next(iter(lengths.values()), 1)
    _check_count(count, max_rows, "columns")
    missing = next((f.name for f in features if f.required and f.name not in columns), None)
    if missing:
        raise InputError(f"{missing}: missing")
    spread = {name: v if isinstance(v, list) else [v] * count for name, v in columns.items()}
    return _matrix(spread, features, count)


def _matrix(columns: Mapping[str, list[Any]], features: Sequence[Feature], count: int) -> Matrix:
    matrix = np.empty((len(features), count), dtype=np.float32)
    for position, feature in enumerate(features):
        if feature.name not in columns:
            matrix[position] = feature.fill_value
        else:
            matrix[position] = _column(columns[feature.name], feature)
    return matrix


def _column(values: list[Any], feature: Feature) -> Matrix:
    allowed = _NUMBERS if feature.required else _NUMBERS_OR_NONE
    if not allowed.issuperset(map(type, values)):
        index = next(index for index, value in enumerate(values) if type(value) not in allowed)
        raise InputError(f"{feature.name}: expected a number, got {values[index]!r:.50} at {index}")
    try:
        with np.errstate(over="ignore"):
            column = np.array([feature.fill_value if value is None else value for value in values], dtype=np.float32)
    except OverflowError as error:
        raise InputError(f"{feature.name}: the number is too large") from error
    with np.errstate(invalid="ignore"):
        outside = column < feature.minimum
        if feature.maximum is not None:
            outside |= column > feature.maximum
    outside |= np.isinf(column)
    if outside.any():
        index = int(outside.argmax())
        raise InputError(f"{feature.name}: expected {_range(feature)}, got {values[index]!r:.50} at {index}")
    return column


def _range(feature: Feature) -> str:
    if feature.maximum is None:
        return f"at least {feature.minimum:g}"
    return f"{feature.minimum:g} to {feature.maximum:g}"


def _check_count(count: int, max_rows: int, field: str) -> None:
    if not 1 <= count <= max_rows:
        raise InputError(f"{field}: expected 1 to {max_rows} rows, got {count}")


def _unknown(name: str, known: set[str], where: str) -> str:
    return f"{where}{name:.100}: unknown feature; known: {', '.join(sorted(known))}"
