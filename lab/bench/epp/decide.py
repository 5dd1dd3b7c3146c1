"""The time of a decision without gRPC: from a request's headers and body to the endpoint, in this process."""

import asyncio
from collections.abc import Sequence

import numpy as np

from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.client import LatencyClient
from epp.prediction.embedded import EmbeddedLatencyClient
from epp.prediction.remote import RemoteLatencyClient
from epp.request.budget import ObservationBudget
from epp.request.decisions import DecisionLog
from epp.request.director import Director
from epp.request.outcomes import Outcomes
from epp.request.parsed import ParsedRequest, RequestReader
from epp.request.routed import Bookkeeping, RoutedRequest
from epp.request.tokens import TokenEstimator
from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.snapshot import Endpoint
from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.gateway import request_of
from lab.bench.figures import steps

_SIZES = (10, 100, 1000)
_WARM_UP = 20
_IN_FLIGHT = 64
_PER_S = 300


def measure(bench: Bench) -> Figures:
    return asyncio.run(_measure(bench))


async def _measure(bench: Bench) -> Figures:
    figures: Figures = {}
    decisions = max(int(bench.seconds * bench.rounds * _PER_S), 10 * _WARM_UP)
    embedded = EmbeddedLatencyClient(bench.latency.store, 60.0)
    remote = RemoteLatencyClient((bench.latency.prediction_url,), 5.0)
    await embedded.start()
    ways: Sequence[tuple[str, LatencyClient | None]] = (
        ("default", None),
        ("slo_embedded", embedded),
        ("slo_remote", remote),
    )
    try:
        for endpoints in steps(_SIZES, "decisions"):
            for name, latency in ways:
                took_ms = await _decide(_director(endpoints, latency), decisions)
                for percentile in (50, 99):
                    figures[f"decide_{name}_{endpoints}_p{percentile}_ms"] = np.percentile(took_ms, percentile)
    finally:
        await embedded.close()
        await remote.close()
    return figures


async def _decide(director: Director, decisions: int) -> list[float]:
    """Return the times of `decisions` decisions in ms, with some requests always in flight.

    Raise RuntimeError if a decision should have a prediction and has none.
    """
    reader = RequestReader(director.books.tokens)
    in_flight: list[RoutedRequest] = []
    took_ms = []
    for index in range(_WARM_UP + decisions):
        headers, body = request_of(slo=director.latency is not None, variant=index)
        began_s = director.clock()
        parsed = reader.read(headers, body, director.scheduler.prefix)
        assert isinstance(parsed, ParsedRequest), "without a tokenizer a request is read at once"
        found = director.route(parsed, None, began_s)
        routed = found if isinstance(found, RoutedRequest) else await found
        took_ms.append((director.clock() - began_s) * 1000)
        if director.latency is not None and routed.record.predicted is None:
            raise RuntimeError(f"a decision was made without prediction: {routed.record.prediction_error}")
        in_flight.append(routed)
        if len(in_flight) > _IN_FLIGHT:
            in_flight.pop(0).ended(director.clock())
    return took_ms[_WARM_UP:]


def _director(endpoints: int, latency: LatencyClient | None) -> Director:
    rng = np.random.default_rng(1)
    scheduler = load_scheduler(DEFAULT_CONFIG, {})
    pool = Pool(PrefixIndex(scheduler.prefix.lru_capacity_per_server), staleness_s=1e9)
    pool.replace_endpoints(Endpoint(f"pod-{i}", f"10.0.{i // 250}.{i % 250 + 1}:8000") for i in range(endpoints))
    for slot in pool.endpoints:
        pool.record_metrics(slot, float(rng.integers(4)), float(rng.integers(64)), float(rng.random()))
    books = Bookkeeping(pool, Outcomes(Metrics()), DecisionLog(1000), ObservationBudget(0, 0), TokenEstimator())
    return Director(scheduler, books, latency, rng=rng)
