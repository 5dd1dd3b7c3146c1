"""Ten times the load that a picker can decide: the share of requests picked in time, and how late the picks are.

Two pickers that differ in `--degrade-after` alone are measured in turn. Each request waits as long for its pick as
a buffering Envoy does by default. Many endpoints make decisions slow, so that one load client can send so many.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.gateway import Shape
from lab.bench.epp.load import LoadPlan, PickerMeasurement, load
from lab.bench.epp.load import measure as measure_load
from lab.bench.epp.pickers import Setting, own_picker
from lab.bench.epp.servers import model_servers
from lab.bench.figures import steps

_TIMES = 10
# Envoy's default `message_timeout`.
_PATIENCE_S = 0.2
_SHAPE = Shape(slo=True, tokens=1, full_duplex=False)
_WAYS = {"fixed": (), "degrading": ("--degrade-after=50ms",)}
# Scraping so many endpoints twice would take much of the machine.
_REFRESH = "10s"
_SELDOM = (f"--idle-metrics-interval={_REFRESH}", "--metrics-staleness-threshold=60s")


def measure(bench: Bench) -> Figures:
    found: dict[str, list[Figures]] = defaultdict(list)
    with model_servers(3 * bench.large_endpoints, large_pages=False) as endpoints, ExitStack() as stack:
        targets = {
            way: stack.enter_context(
                own_picker(bench, Setting(endpoints, slo=True, refresh=_REFRESH, flags=(*_SELDOM, *flags)), way)
            )
            for way, flags in _WAYS.items()
        }
        time.sleep(bench.settle_s)
        closed = LoadPlan(targets["fixed"].address, _SHAPE, bench.seconds, at_once=8)
        # The first load warms the picker up.
        capacity = max(load(targets["fixed"], closed).per_s for _ in range(2))
        for _ in steps(range(bench.rounds), "overload"):
            for way, target in targets.items():
                plan = LoadPlan(
                    target.address,
                    _SHAPE,
                    bench.seconds,
                    per_s=_TIMES * capacity,
                    connections=4,
                    patience_s=_PATIENCE_S,
                )
                found[way].append(dict(_figures(way, measure_load(target, plan))))
        figures = {"overload_capacity_per_s": capacity}
        for way, rounds in found.items():
            figures |= {name: float(np.median([one[name] for one in rounds])) for name in rounds[0]}
            figures[f"overload_{way}_rss_mib"] = targets[way].rss_mib
        return figures


def _figures(way: str, one: PickerMeasurement) -> Iterator[tuple[str, float]]:
    counted = one.counted
    sent = len(counted.picked_ms) + counted.failed
    yield f"overload_{way}_sent_per_s", sent / counted.seconds
    yield f"overload_{way}_picked_per_s", len(counted.picked_ms) / counted.seconds
    yield f"overload_{way}_picked_share", len(counted.picked_ms) / max(sent, 1)
    yield f"overload_{way}_pick_p99_ms", one.picked_ms(99) if counted.picked_ms else float("nan")
