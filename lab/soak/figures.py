"""The figures of a soak: whether anything grew, and what was lost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.soak.clients import ClientReport
from lab.soak.resources import Levels


@dataclass(frozen=True)
class SoakRun:
    """One run: its front and workers, what the clients saw, the picker's levels, and what stayed in flight."""

    front: str
    workers: int
    seen: ClientReport
    levels: Levels
    in_flight: float

    @property
    def is_clean(self) -> bool:
        return not self.seen.lost and not self.in_flight


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the second and of the last third: the first one warms up."""
    third = max(len(values) // 3, 1)
    return float(np.median(values[third : 2 * third] or values)), float(np.median(values[-third:]))


def p99_thirds_ms(seen: ClientReport) -> tuple[float, float]:
    """Return the p99 of the requests in the second and in the last third."""
    _, middle_ms, last_ms = p99_over_time(seen, 3)
    return middle_ms[1], last_ms[1]


def p99_over_time(seen: ClientReport, spans: int) -> list[tuple[float, float]]:
    """Cut the run into equal spans. Return the middle of each in s, and the p99 of its requests in ms, or NaN."""
    span_s = max((at_s for at_s, _ in seen.took), default=0.0) / spans or 1.0
    in_span: list[list[float]] = [[] for _ in range(spans)]
    for at_s, ms in seen.took:
        in_span[min(int(at_s / span_s), spans - 1)].append(ms)
    return [
        ((place + 0.5) * span_s, float(np.percentile(times_ms or [np.nan], 99)))
        for place, times_ms in enumerate(in_span)
    ]


def figures(runs: Sequence[SoakRun]) -> dict[str, float]:
    """Return all figures by name. Those that can't be told are left out."""
    found: dict[str, float] = {}
    for run in runs:
        name = f"soak_{run.front}_{run.workers}"
        before_ms, after_ms = p99_thirds_ms(run.seen)
        found |= {
            f"{name}_sent": run.seen.sent,
            f"{name}_lost": len(run.seen.lost),
            f"{name}_aborted": run.seen.aborted,
            f"{name}_in_flight": run.in_flight,
            f"{name}_p99_ratio": after_ms / before_ms,
        }
        for level in ("rss_mib", "descriptors", "threads"):
            middle, last = thirds(getattr(run.levels, level))
            found |= {f"{name}_{level}": last, f"{name}_{level}_growth": last - middle}
    return {name: value for name, value in found.items() if not np.isnan(value)}
