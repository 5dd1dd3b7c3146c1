"""The cost of reading the pool's metrics every 50 ms, and their freshness, under a small load and idle.

The cost includes that of the few requests. Without requests, a picker may scrape less often.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.gateway import Shape
from lab.bench.epp.load import LoadPlan, load
from lab.bench.epp.pickers import Setting, own_picker, peer_picker
from lab.bench.epp.servers import model_servers, pages_served
from lab.bench.epp.target import MeasuredPicker
from lab.bench.figures import steps

_REQUESTS_PER_S = 10.0
_LEAST_REQUESTS = 5
# Seconds for which a picker may keep scraping at the full rate after the last request.
_LINGER_S = 2.5


def measure(bench: Bench) -> Figures:
    figures: Figures = {}
    sizes = ((bench.endpoints, True), (bench.endpoints, False), (bench.large_endpoints, True))
    for endpoints, large_pages in steps(sizes, "scraping"):
        figures |= _measure_pool(bench, endpoints, large_pages)
    page_us = f"scrape_page_us_{bench.endpoints}_endpoints"
    if {page_us, f"peer_{page_us}"} <= figures.keys():
        # On a busy machine a picker reads fewer pages and uses fewer cores, so the cost per page is compared.
        figures["peer_scrape_cores_ratio"] = figures[page_us] / figures[f"peer_{page_us}"]
    return figures


def _measure_pool(bench: Bench, endpoints: int, large_pages: bool) -> Figures:
    """Measure one picker at a time, because each may need a whole core for scraping alone."""
    figures: Figures = {}
    name = f"{endpoints}_endpoints" + ("" if large_pages else "_small_pages")
    with model_servers(endpoints, large_pages=large_pages, first_port=bench.first_port) as addresses:
        setting = Setting(addresses)
        starts: dict[str, Callable[[], AbstractContextManager[MeasuredPicker]]] = {
            "": lambda: own_picker(bench, setting)
        }
        if bench.peer:
            starts["peer_"] = lambda: peer_picker(bench, setting)
        for prefix, start in starts.items():
            found = bench.attempt(f"{prefix}scrape_cores_{name}", _measure_picker, bench, start, addresses)
            figures |= {f"{prefix}scrape_{what}_{name}": value for what, value in (found or {}).items()}
    return figures


def _measure_picker(
    bench: Bench, start: Callable[[], AbstractContextManager[MeasuredPicker]], addresses: list[str]
) -> Figures:
    with start() as target:
        seconds = max(bench.seconds, _LEAST_REQUESTS / _REQUESTS_PER_S)
        plan = LoadPlan(target.address, Shape(), seconds, per_s=_REQUESTS_PER_S)
        loads = [load(target, plan, lambda: pages_served(addresses[0])) for _ in range(bench.rounds)]
        time.sleep(max(bench.settle_s, _LINGER_S))
        idle_cores = target.idle_cores(bench.seconds)
    lasted_s, spent_s = sum(one.counted.seconds for one in loads), sum(one.cpu_s for one in loads)
    pages = sum(one.watched for one in loads)
    return {
        "cores": spent_s / lasted_s,
        "page_us": spent_s * 1e6 / pages,
        "freshness_ms": len(addresses) * lasted_s / pages * 1000,
        "idle_cores": idle_cores,
        "pick_p50_ms": float(np.median([one.picked_ms(50) for one in loads])),
        "pick_p99_ms": float(np.median([one.picked_ms(99) for one in loads])),
    }
