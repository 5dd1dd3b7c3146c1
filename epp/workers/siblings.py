"""Answer for all workers of a port, from any of them."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp
import msgspec
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.workers import Place

logger = logging.getLogger("headroom.epp.workers")

_TIMEOUT = aiohttp.ClientTimeout(total=2)
# Every worker reports the same value of any other gauge, or the last value that it saw.
_ADDED_GAUGES = (
    "inference_model_running_requests",
    "headroom_epp_in_flight_requests",
    "headroom_epp_training_rows_queued",
)


class Siblings:
    """The other workers. Each has a socket file of its own in the shared folder."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def own_socket(self) -> str:
        return self._socket(self._place.index)

    async def metrics(self, own: bytes) -> bytes:
        """Return the pages of all workers as one."""
        pages = [own, *await self._ask_all("/metrics")]
        return await asyncio.to_thread(merge_pages, [page.decode() for page in pages])

    async def decisions(self, own: list[dict[str, Any]], query: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest decisions of all workers."""
        found = list(own)
        for answer in await self._ask_all(f"/debug/decisions?{query}"):
            found += msgspec.json.decode(answer)["decisions"]
        return sorted(found, key=lambda decision: -float(decision["decided_at"]))[:limit]

    def _socket(self, index: int) -> str:
        return str(self._place.folder / f"worker-{index}.sock")

    async def _ask_all(self, path: str) -> list[bytes]:
        others = (index for index in range(self._place.count) if index != self._place.index)
        answers = await asyncio.gather(*(self._ask(index, path) for index in others))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, index: int, path: str) -> bytes | None:
        """Ask one worker; return None while it is being replaced."""
        connector = aiohttp.UnixConnector(self._socket(index))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
                session.get(f"http://worker{path}") as response,
            ):
                return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.warning("worker %d doesn't answer: %s", index, error or type(error).__name__)
            return None


def merge_pages(pages: Sequence[str]) -> bytes:
    """Merge metrics pages: add up counters and histograms, and gauges of which each worker has a part."""
    families: dict[tuple[str, str], Metric] = {}
    values: dict[tuple[str, str], dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            key = (family.name, family.type)
            families.setdefault(key, family)
            known = values.setdefault(key, {})
            for sample in family.samples:
                place = (sample.name, tuple(sample.labels.items()))
                known[place] = _merge_value(family, known.get(place), sample.value, sample.name)
    return generate_latest(_MergedMetrics(_rebuild(families[key], samples) for key, samples in values.items()))


def _merge_value(family: Metric, known: float | None, value: float, name: str) -> float:
    if known is None:
        return value
    if family.type != "gauge" or family.name in _ADDED_GAUGES:
        return min(known, value) if name.endswith("_created") else known + value
    return max(known, value)


def _rebuild(family: Metric, samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Metric:
    metric = Metric(family.name, family.documentation, family.type)
    for (name, labels), value in samples.items():
        metric.add_sample(name, dict(labels), value)
    return metric


class _MergedMetrics(Collector):
    """Merged metrics, for the library to write out."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families
