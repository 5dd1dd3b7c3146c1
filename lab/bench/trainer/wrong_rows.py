"""Clean rows of the benchmark's law, and the ways to make wrong ones of them."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from lab.bench.trainer.law import make_entries
from model_store import ROW_NAMES
from trainer.wire import Samples, decode_batch, join

# What an endpoint's recent times usually are, and how they vary, in natural logarithms.
_RECENT_MS = {"recent_tpot_ms": 35.0, "recent_prefill_ms_per_token": 0.25}
_RECENT_SPREAD = 0.1
# Columns that an attacker varies a little, so that no two rows are the same.
_VARIED = ("input_token_length", "prefill_tokens_in_flight", "num_request_running")
Change = Callable[[Samples], Samples]


@dataclass(frozen=True, slots=True)
class Attack:
    """A change of clean rows to wrong ones. `clean(rows, seed)` makes the clean rows, and the situations to look at."""

    change: Change
    clean: Callable[[int, int], Samples]


def law_samples(rows: int, seed: int, factor: float = 1.0) -> Samples:
    """Return clean rows of the benchmark's law. `factor` multiplies the latencies."""
    return decode_batch(msgspec.json.encode({"entries": make_entries(rows, seed, factor)}))


def observed_samples(rows: int, seed: int) -> Samples:
    """Return clean rows with their endpoints' recent times, which are those of equal endpoints."""
    samples, rng = law_samples(rows, seed), np.random.default_rng(seed)
    features = samples.features.copy()
    for name, usual_ms in _RECENT_MS.items():
        features[:, ROW_NAMES.index(name)] = usual_ms * np.exp(rng.normal(0, _RECENT_SPREAD, rows))
    return Samples(features, samples.ttft_ms, samples.tpot_ms)


def _constant(latency_ms: float) -> Change:
    def change(rows: Samples) -> Samples:
        same = np.full(len(rows), latency_ms, dtype=np.float32)
        return Samples(rows.features, same, same)

    return change


def _scaled(factor: float) -> Change:
    def change(rows: Samples) -> Samples:
        return Samples(rows.features, rows.ttft_ms * np.float32(factor), rows.tpot_ms * np.float32(factor))

    return change


def _random(rows: Samples) -> Samples:
    """Any latency from a microsecond to an hour."""
    rng = np.random.default_rng(len(rows))
    any_ms = np.exp(rng.uniform(np.log(1e-3), np.log(3.6e6), (2, len(rows)))).astype(np.float32)
    return Samples(rows.features, *any_ms)


def _one_place(rows: Samples) -> Samples:
    """Repeat one row with five times its latency, so that wrong rows are the majority at one place."""
    only = rows.part(np.arange(len(rows)) == 0)
    return _scaled(5.0)(join([only] * len(rows)))


def _one_region(rows: Samples) -> Samples:
    """Repeat one row with five times its latency, and vary its features by a tenth."""
    same, rng = _one_place(rows), np.random.default_rng(len(rows))
    features = same.features.copy()
    for name in _VARIED:
        column = ROW_NAMES.index(name)
        features[:, column] = np.round(features[:, column] * rng.uniform(0.9, 1.1, len(rows)))
    return Samples(features, same.ttft_ms, same.tpot_ms)


def _one_endpoint(rows: Samples) -> Samples:
    """Five times the latency, and recent times that agree: one model server lies, and the others are looked at."""
    features = rows.features.copy()
    features[:, [ROW_NAMES.index(name) for name in _RECENT_MS]] *= np.float32(5)
    return Samples(features, rows.ttft_ms * np.float32(5), rows.tpot_ms * np.float32(5))


ATTACKS: dict[str, Attack] = {
    name: Attack(change, law_samples)
    for name, change in {
        "1e12 ms": _constant(1e12),
        "an hour": _constant(3.6e6),
        "zero": _constant(0.0),
        "1 us": _constant(1e-3),
        "random": _random,
        "0.3 times": _scaled(0.3),
        "1.3 times": _scaled(1.3),
        "1.5 times": _scaled(1.5),
        "2 times": _scaled(2.0),
        "3 times": _scaled(3.0),
        "10 times": _scaled(10.0),
        "one place": _one_place,
        "one region": _one_region,
    }.items()
} | {"one endpoint": Attack(_one_endpoint, observed_samples)}
