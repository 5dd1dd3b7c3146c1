"""Derived features, written twice: as numpy functions for training and as equal ONNX nodes for serving."""

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper

from model_store import ROW_NAMES, SCHEMAS
from trainer.window import PREFIX_BUCKETS, prefix_buckets
from trainer.wire import Matrix

# By target: the derived columns. They follow the raw ones.
DERIVED: dict[str, tuple[str, ...]] = {
    "ttft": ("effective_input_tokens", "prefill_score_bucket", "expected_prefill_ms")
}
# By target: the columns whose rise must not lower the predicted latency. Boosters are constrained to this; the gate
# checks it.
RISING: dict[str, tuple[str, ...]] = {
    "ttft": (
        "input_token_length",
        "num_request_waiting",
        "prefill_tokens_in_flight",
        "effective_input_tokens",
        "expected_prefill_ms",
    ),
}
# By target: the terms of the latency's trend, each a sum of columns. A token that is ahead of a prompt takes as long as
# one of its own. The few rows of a pool that hardly ever has a queue would not show it, so the two are one term; many
# rows may show that they differ.
TREND: dict[str, tuple[tuple[str, ...], ...]] = {
    "ttft": (
        ("effective_input_tokens", "prefill_tokens_in_flight"),
        ("effective_input_tokens",),
        ("expected_prefill_ms",),
        ("num_request_waiting",),
        ("recent_tpot_ms",),
    ),
    # Prompts that wait slow an answer only until the engine's steps are full of them.
    "tpot": (("num_request_running",), ("decode_tokens_in_flight",), ("recent_tpot_ms",)),
}


def design_columns(target: str) -> tuple[str, ...]:
    """Return the columns that a target's models are fitted to: raw features first, then derived ones."""
    return (*(feature.name for feature in SCHEMAS[target]), *DERIVED.get(target, ()))


def monotone(target: str) -> tuple[int, ...]:
    """Return 1 for each design column whose effect is constrained to rise, and 0 for the others."""
    return tuple(int(column in RISING.get(target, ())) for column in design_columns(target))


def trend_terms(target: str) -> tuple[tuple[int, ...], ...]:
    """Return, for each term of the trend, the positions of its design columns."""
    columns = design_columns(target)
    return tuple(tuple(columns.index(column) for column in term) for term in TREND[target])


def raw_columns(target: str, rows: Matrix) -> Matrix:
    """Select the columns that a target's models take from `rows` [rows, ROW_FEATURES]."""
    return rows[:, [ROW_NAMES.index(feature.name) for feature in SCHEMAS[target]]]


def design_matrix(target: str, names: Sequence[str], rows: Matrix) -> Matrix:
    """Append the target's derived columns to the raw columns `rows` [rows, names]; all arithmetic is float32."""
    derived = [_ARRAYS[name](names, rows) for name in DERIVED.get(target, ())]
    return np.column_stack((rows, *derived)).astype(np.float32) if derived else rows


def derivation_nodes(target: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes and constants that compute the derived columns, under their own names, from the graph's inputs."""
    if target not in DERIVED:
        return [], []
    nodes = [
        helper.make_node("Sub", ["derive_one", "prefix_cache_score"], ["derive_uncached_share"]),
        helper.make_node("Mul", ["derive_uncached_share", "input_token_length"], ["effective_input_tokens"]),
        helper.make_node("Mul", ["prefix_cache_score", "derive_buckets"], ["derive_scaled"]),
        helper.make_node("Floor", ["derive_scaled"], ["derive_floor"]),
        helper.make_node("Clip", ["derive_floor", "derive_zero", "derive_last"], ["prefill_score_bucket"]),
        helper.make_node("Add", ["prefill_tokens_in_flight", "effective_input_tokens"], ["derive_tokens_ahead"]),
        helper.make_node("Mul", ["derive_tokens_ahead", "recent_prefill_ms_per_token"], ["expected_prefill_ms"]),
    ]
    constants = {
        "derive_one": 1.0,
        "derive_zero": 0.0,
        "derive_last": PREFIX_BUCKETS - 1.0,
        "derive_buckets": float(PREFIX_BUCKETS),
    }
    tensors = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items()]
    return nodes, tensors


def _effective_input_tokens(names: Sequence[str], rows: Matrix) -> Matrix:
    prefix, tokens = rows[:, names.index("prefix_cache_score")], rows[:, names.index("input_token_length")]
    effective: Matrix = (np.float32(1) - prefix) * tokens
    return effective


def _prefill_score_bucket(names: Sequence[str], rows: Matrix) -> Matrix:
    return prefix_buckets(rows[:, names.index("prefix_cache_score")])


def _expected_prefill_ms(names: Sequence[str], rows: Matrix) -> Matrix:
    ahead = rows[:, names.index("prefill_tokens_in_flight")] + _effective_input_tokens(names, rows)
    expected: Matrix = ahead * rows[:, names.index("recent_prefill_ms_per_token")]
    return expected


_ARRAYS = {
    "effective_input_tokens": _effective_input_tokens,
    "prefill_score_bucket": _prefill_score_bucket,
    "expected_prefill_ms": _expected_prefill_ms,
}
