"""Read an endpoint's load from its metrics pages, one after another."""

from collections.abc import Sequence
from itertools import chain
from math import nan
from typing import NamedTuple

from epp.exceptions import ScrapeError
from epp.pool.prefix_index import UNKNOWN_CACHE, CacheSize
from epp.scheduling.snapshot import NO_ADAPTERS, Adapters
from epp.scraping.cache_reader import CacheReader
from epp.scraping.engines import EngineMetrics
from epp.scraping.metrics_page import MOST_ADAPTERS, Gauge, Gauges, parse_adapters
from epp.scraping.series import Series

_MAX_REQUESTS = 1e6
# Highest believable fraction. Rounding lifts a full cache a little above 1; a far higher value is a percentage.
_MAX_USAGE = 1.1


class Load(NamedTuple):
    """An endpoint's load and cache by its own page; `kv_usage` is a fraction of 1.

    A missing number keeps its value, or is 0.
    """

    waiting: float
    running: float
    kv_usage: float
    adapters: Adapters
    cache: CacheSize = UNKNOWN_CACHE


class PageReader:
    """Reads pages. It remembers which engine the endpoint turned out to run, and where the series were."""

    def __init__(self, engines: Sequence[EngineMetrics]) -> None:
        self._engines = engines
        self._page: _EnginePage | None = None

    @property
    def values(self) -> "tuple[Value, ...]":
        """The last page's waiting requests, running requests and KV cache usage."""
        return self._page.values if self._page else ()

    @property
    def cuts_adapters(self) -> bool:
        """Whether the last page had more LoRA adapters than are read."""
        return self._page is not None and self._page.cuts_adapters

    @property
    def hit_ratio(self) -> float:
        """The share of prompt tokens that the server has found in its cache; NaN if unknown."""
        return self._page.cache.hit_ratio if self._page else nan

    def read(self, page: bytes) -> Load:
        """Return the load. Raise ScrapeError if the page has none of the wanted series."""
        for candidate in chain((self._page,) if self._page else (), map(_EnginePage, self._engines)):
            if candidate.read(page):
                self._page = candidate
                return candidate.load
        self._page = None
        first = self._engines[0]
        if page[:1] in (b"[", b"{"):
            raise ScrapeError("page", "the page is JSON: trtllm-serve has the wanted one at /prometheus/metrics")
        names = ", ".join(str(gauges[0]) for gauges in (first.waiting, first.running, first.kv_usage) if gauges)
        raise ScrapeError("page", f"the page has no plausible value of any of {names}")


class Value:
    """A wanted number, as last read; `missing` and `rejected` say why the last page did not replace it."""

    __slots__ = ("_limit", "missing", "number", "purpose", "rejected", "series")

    def __init__(self, purpose: str, gauges: Gauges, limit: float) -> None:
        self.purpose = purpose
        self.series = Series(gauges)
        self.number = 0.0
        self.missing = self.rejected = False
        self._limit = limit

    @property
    def gauge(self) -> Gauge:
        return self.series.gauges[0]

    def read(self, page: bytes) -> bool:
        """Read the number; return whether the page has a plausible one, or none is wanted."""
        if not self.series.gauges:
            return True
        number = self.series.read(page)
        self.missing = number is None
        self.rejected = number is not None and not 0 <= number <= self._limit
        if number is None or self.rejected:
            return False
        self.number = number
        return True


class _EnginePage:
    """The pages of an endpoint that runs a certain engine."""

    __slots__ = ("_labels", "_lora", "cache", "cuts_adapters", "load", "values")

    def __init__(self, engine: EngineMetrics) -> None:
        self.values = (
            Value("waiting", engine.waiting, _MAX_REQUESTS),
            Value("running", engine.running, _MAX_REQUESTS),
            Value("kv_usage", engine.kv_usage, _MAX_USAGE),
        )
        self._lora = Series(engine.lora)
        self.cache = CacheReader(engine.cache)
        self._labels: bytes | None = None
        self.cuts_adapters = False
        self.load = Load(0.0, 0.0, 0.0, NO_ADAPTERS)

    def read(self, page: bytes) -> bool:
        """Read the page's numbers; return whether it has any."""
        waiting, running, kv_usage = self.values
        # Read all three, even if the first read returns nothing.
        if not any([waiting.read(page), running.read(page), kv_usage.read(page)]):
            return False
        self.cache.read(page)
        self.load = Load(waiting.number, running.number, kv_usage.number, self._adapters(page), self.cache.size)
        return True

    def _adapters(self, page: bytes) -> Adapters:
        """Return the adapters, parsed only when they change. The series is absent until an adapter has been loaded."""
        at = self._lora.find(page)
        labels = self._lora.gauge.newest_labels(page, at) if at >= 0 else None
        adapters = self.load.adapters
        if labels is None:
            # The series is there, but all its lines are overlong.
            self.cuts_adapters = at >= 0
        if labels != self._labels:
            self._labels = labels
            self.cuts_adapters = labels is not None and labels.count(b",") > MOST_ADAPTERS
            adapters = parse_adapters(labels) if labels else NO_ADAPTERS
        return adapters
