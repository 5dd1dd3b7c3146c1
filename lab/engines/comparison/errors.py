"""How far off the twin is from the engine, and the engine from itself, request by request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.engines.comparison.journal import Seen

LATENCIES = ("ttft", "tpot", "e2e")
# Neighbouring requests share their queue, so intervals are drawn from blocks of them.
_BLOCK = 20
_DRAWS = 1_000


@dataclass(frozen=True, slots=True)
class Pairs:
    """The same requests, seen twice: as they should be, and as they are compared."""

    wanted: Sequence[Seen]
    compared: Sequence[Seen]


def relative(pairs: Pairs, latency: str) -> NDArray[np.float64]:
    """Return the signed relative errors, of the requests that have this latency on both sides."""
    both = [
        (getattr(wanted, f"{latency}_ms"), getattr(compared, f"{latency}_ms"))
        for wanted, compared in zip(pairs.wanted, pairs.compared, strict=True)
    ]
    return np.array([compared / wanted - 1 for wanted, compared in both if wanted and compared])


def figures(prefix: str, runs: Iterable[Pairs]) -> dict[str, float]:
    """Return the median absolute errors and the bias (the median signed error), in percent, with 95 % intervals."""
    of = list(runs)
    found: dict[str, float] = {}
    for latency in LATENCIES:
        errors = [relative(pairs, latency) for pairs in of]
        joined = np.concatenate(errors) if errors else np.array([])
        if not len(joined):
            continue
        name = f"{prefix}_{latency}"
        found[f"{name}_mdape"] = 100 * float(np.median(np.abs(joined)))
        low, high = interval([np.abs(one) for one in errors])
        found |= {f"{name}_mdape_low": 100 * low, f"{name}_mdape_high": 100 * high}
        found[f"{name}_bias"] = 100 * float(np.median(joined))
    return found


def interval(runs: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the 95 % interval of the median, from resampled blocks of neighbouring requests."""
    blocks = [run[at : at + _BLOCK] for run in runs for at in range(0, len(run), _BLOCK)]
    rng = np.random.default_rng(1)
    medians = [
        np.median(np.concatenate([blocks[index] for index in rng.integers(len(blocks), size=len(blocks))]))
        for _ in range(_DRAWS)
    ]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def table(by_mix: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Return the rows of a table: errors by latency, the bias, and how far two runs of the engine are apart."""
    names = [f"engine_{latency}_mdape" for latency in LATENCIES]
    names += ["engine_e2e_bias", *(f"engine_repeat_{latency}_mdape" for latency in LATENCIES)]
    return [(mix, *(f"{row[name]:.1f}" if name in row else "-" for name in names)) for mix, row in by_mix.items()]
