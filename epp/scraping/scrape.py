"""Keep the pool's metrics fresh: ask endpoints in turn, evenly over time, and often only while decisions are made."""

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field

from epp.exceptions import ConfigError
from epp.pool.pool import Pool
from epp.scheduling.snapshot import Endpoint
from epp.scraping.engines import (
    ENGINE_LABELS,
    ENGINES,
    EngineMetrics,
    configured_engine,
    engines_to_try,
    labelled_engine,
)
from epp.scraping.metrics_page import MOST_ADAPTERS
from epp.scraping.pace import ScrapeInterval, ScrapePace
from epp.scraping.page_access import PageAccess
from epp.scraping.page_address import PageLocator
from epp.scraping.page_reader import Load, PageReader, Value
from epp.scraping.target import ScrapeCounts, ScrapeTarget, ScrapeTimeouts

logger = logging.getLogger("headroom.epp.scrape")

# Seconds between two looks for endpoints that come and go, and for requests that take too long.
_SWEEP_S = 0.1
# Least seconds between two ticks. With many endpoints, one tick asks several of them.
_MIN_TICK_S = 0.004
# Scrapes of an endpoint before its metrics are stale: it dies between two of them, and one may be late.
_SCRAPES_UNTIL_STALE = 4
_FLAGS = {
    "waiting": "--total-queued-requests-metric",
    "running": "--total-running-requests-metric",
    "kv_usage": "--kv-cache-usage-percentage-metric",
}


@dataclass(frozen=True, slots=True)
class ScrapeConfig:
    """The pages to read, how to reach them, and the interval. `port` 0 is the endpoint's own.

    While decisions are made, and for `linger_s` after the last one, each endpoint is asked every `interval_s`. If the
    picker's own requests explain its load, the interval grows up to `most_interval_s`, but not beyond a quarter of
    `staleness_s`. Otherwise each is asked every `idle_interval_s`, or twice in `staleness_s` if that is more often.
    When there are more endpoints than `max_pages_per_s` allows, each is asked less often.
    """

    engine: EngineMetrics = field(default_factory=lambda: configured_engine("vllm"))
    interval_s: float = 0.05
    most_interval_s: float = 0.0
    idle_interval_s: float = 1.0
    linger_s: float = 2.0
    staleness_s: float = 2.0
    max_pages_per_s: float = 4000.0
    timeouts: ScrapeTimeouts = field(default_factory=ScrapeTimeouts)
    access: PageAccess = field(default_factory=PageAccess)
    port: int = 0
    path: str = "/metrics"


class Scraper:
    """Asks the pool's endpoints in rotation. Call `run` once, and `note_demand` at every decision."""

    def __init__(self, pool: Pool, config: ScrapeConfig) -> None:
        self._pool = pool
        self._config = config
        if min(config.interval_s, config.max_pages_per_s) <= 0:
            raise ConfigError("--refresh-metrics-interval: expected a time longer than 0")
        most_s = min(config.most_interval_s, config.staleness_s / _SCRAPES_UNTIL_STALE)
        self._bounds = ScrapeInterval(config.interval_s, max(config.interval_s, most_s))
        self._idle_interval_s = max(config.interval_s, min(config.idle_interval_s, config.staleness_s / 2))
        self._locator = PageLocator(config.access, config.port, config.path)
        self._targets: dict[int, ScrapeTarget] = {}
        self._rotation: list[tuple[int, ScrapeTarget]] = []
        self._next = 0
        self._credit = 0.0
        self._jitter = 1.0
        self._wanted_at = self._ticked_at = self._sweep_at = 0.0
        self._resting = False
        self._nap: asyncio.Future[None] | None = None
        self._logged: set[str] = set()
        self.counts = ScrapeCounts()

    @property
    def resting(self) -> bool:
        """True if no decision has come for so long that the metrics may age."""
        return self._resting

    @property
    def stale(self) -> int:
        """The number of endpoints whose metrics are older than allowed."""
        return sum(target.stale for target in self._targets.values())

    @property
    def max_age_s(self) -> float:
        """The age of the oldest metrics; for an endpoint without metrics, the time since it came."""
        if not self._targets:
            return 0.0
        return time.monotonic() - min(target.page_at for target in self._targets.values())

    @property
    def intervals_s(self) -> dict[str, float]:
        """The present time between two scrapes of each endpoint, by its name."""
        return {
            target.endpoint.name: self._idle_interval_s if self._resting else target.pace.seconds
            for target in self._targets.values()
        }

    @property
    def hit_ratios(self) -> dict[str, float]:
        """The share of prompt tokens that each endpoint has found in its cache, by its name, where its metrics tell."""
        ratios = {target.endpoint.name: target.reader.hit_ratio for target in self._targets.values()}
        return {name: ratio for name, ratio in ratios.items() if ratio == ratio}

    def note_demand(self) -> None:
        """Note that a decision is being made, so that metrics stay fresh for a while. This is cheap."""
        self._wanted_at = time.monotonic()
        if self._resting and self._nap is not None:
            _end(self._nap)

    async def run(self) -> None:
        """Run until cancelled."""
        self._wanted_at = self._ticked_at = time.monotonic()
        try:
            while True:
                await self._sleep(self._tick())
        finally:
            for target in self._targets.values():
                target.close()

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the time is over, or a decision wakes a resting scraper."""
        loop = asyncio.get_running_loop()
        self._nap = nap = loop.create_future()
        timer = loop.call_later(seconds, _end, nap)
        try:
            await nap
        finally:
            timer.cancel()

    def _tick(self) -> float:
        """Ask the endpoints that are due since the last tick; return the time until the next tick."""
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep(now)
        resting, self._resting = self._resting, now - self._wanted_at > self._config.linger_s
        if resting and not self._resting:
            self._ticked_at = now
            for target in self._targets.values():
                target.pace.quicken()
        count = len(self._rotation)
        interval_s = self._interval_s(count)
        # A busy event loop does not catch up on missed requests: the interval gets longer, and nothing piles up.
        self._credit = min(self._credit + (now - self._ticked_at) / interval_s * count, max(count / 2, 1.0))
        self._ticked_at = now
        while self._credit >= 1.0 and count:
            self._credit -= 1.0
            slot, target = self._turn()
            if self._resting or target.pace.is_due(now):
                target.ask(now, self._pool.in_flight_on(slot))
        pause_s = min(_SWEEP_S, interval_s / 10)
        return pause_s if self._resting else max(_MIN_TICK_S, min(pause_s, interval_s / max(count, 1)))

    def _interval_s(self, count: int) -> float:
        config = self._config
        interval_s = self._idle_interval_s if self._resting else config.interval_s
        return max(interval_s, count / config.max_pages_per_s) * self._jitter

    def _turn(self) -> tuple[int, ScrapeTarget]:
        """Return the slot of the rotation's next endpoint, and the endpoint.

        Rounds vary in length, so that pickers don't ask in step.
        """
        if self._next >= len(self._rotation):
            self._next = 0
            self._jitter = random.uniform(0.9, 1.1)
        self._next += 1
        return self._rotation[self._next - 1]

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + _SWEEP_S
        if self._config.access.refresh(now):
            for target in self._targets.values():
                target.address = self._locator.locate(target.endpoint)
        if self._follow():
            self._wanted_at = now
        for target in self._targets.values():
            target.expire(now)
            stale = now - target.page_at > self._config.staleness_s
            if stale != target.stale:
                target.stale = stale
                self._log_age(target)

    def _follow(self) -> bool:
        """Follow the pool's endpoints; return whether any is new."""
        endpoints = self._pool.endpoints
        gone = [slot for slot, target in self._targets.items() if endpoints.get(slot) is not target.endpoint]
        for slot in gone:
            target = self._targets[slot]
            if endpoints.get(slot) == target.endpoint:
                target.endpoint = endpoints[slot]
            else:
                self._targets.pop(slot).close()
        new = [slot for slot in endpoints if slot not in self._targets]
        for slot in new:
            self._targets[slot] = self._target(endpoints[slot], slot)
        if gone or new:
            self._rotation = list(self._targets.items())
        if new and self._interval_s(len(self._rotation)) > self._config.staleness_s:
            logger.warning(
                "%d endpoints at %g pages a second can't be kept fresher than %g s",
                len(self._rotation), self._config.max_pages_per_s, self._config.staleness_s,
            )  # fmt: skip
        return bool(new)

    def _target(self, endpoint: Endpoint, slot: int) -> ScrapeTarget:
        config = self._config
        engine = labelled_engine(endpoint.labels)
        if engine and engine not in ENGINES:
            self._log_once(engine, "%s runs %r, which is none of %s", endpoint.name, engine, ", ".join(ENGINES))
        return ScrapeTarget(
            endpoint,
            self._locator.locate(endpoint),
            PageReader(engines_to_try(config.engine, endpoint.labels)),
            config.timeouts,
            self.counts,
            ScrapePace(self._bounds),
            lambda target, load: self._record(slot, target, load),
        )

    def _record(self, slot: int, target: ScrapeTarget, load: Load) -> None:
        # Between two sweeps, another endpoint may have taken the slot.
        endpoint = self._pool.endpoints.get(slot)
        if endpoint is not None and endpoint.address == target.endpoint.address:
            target.pace.page_came(load.waiting + load.running, self._pool.in_flight_on(slot))
            self._pool.record_metrics(slot, *load)
        for value in target.reader.values:
            if value.missing or value.rejected:
                self._tell_value(target, value)
        if target.reader.cuts_adapters:
            self.counts.rejected_values += 1
            self._log_once(
                "adapters", "%s lists more LoRA adapters than are read: %d", target.address.url, MOST_ADAPTERS
            )

    def _tell_value(self, target: ScrapeTarget, value: Value) -> None:
        self.counts.rejected_values += value.rejected
        if value.missing:
            self._log_once(
                str(value.gauge),
                "%s has no %s: name the server's own by %s, or the server by --model-server-type or the label %s",
                target.address.url, value.gauge, _FLAGS[value.purpose], ENGINE_LABELS[0],
            )  # fmt: skip
        else:
            text = "%s: a %s that can't be is ignored (negative, no number or too large)"
            self._log_once(f"{value.gauge} rejected", text, target.address.url, value.series.gauge)

    def _log_once(self, key: str, text: str, *values: object) -> None:
        """Log the text for the first endpoint only, because all endpoints are probably the same."""
        if key not in self._logged:
            self._logged.add(key)
            logger.warning(text, *values)

    def _log_age(self, target: ScrapeTarget) -> None:
        if target.stale:
            reason = target.last_error or "no answer yet"
            logger.warning("no metrics of %s for %g s: %s", target.address.url, self._config.staleness_s, reason)
        else:
            logger.info("metrics of %s are read again", target.address.url)


def _end(nap: asyncio.Future[None]) -> None:
    if not nap.done():
        nap.set_result(None)
