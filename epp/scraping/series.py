"""Find a series on one endpoint's pages, one after another."""

from epp.scraping.metrics_page import Gauge, Gauges

# Pages between two searches for a missing series, because each search reads the whole page.
_PAGES_PER_LOOK = 20


class Series:
    """A series with several possible names: the name that the endpoint uses, and its place on the last page."""

    __slots__ = ("_near", "_skip", "gauge", "gauges")

    def __init__(self, gauges: Gauges) -> None:
        self.gauges = gauges
        self.gauge = gauges[0] if gauges else Gauge(b"", {})
        self._near = -1
        self._skip = 0

    def find(self, page: bytes) -> int:
        """Return where its first line begins, or -1."""
        if not self.gauges:
            return -1
        if self._skip:
            self._skip -= 1
            return -1
        if self._near >= 0:
            self._near = self.gauge.find(page, self._near)
        if self._near < 0:
            for gauge in self.gauges:
                self._near = gauge.find(page)
                if self._near >= 0:
                    self.gauge = gauge
                    break
            else:
                self._skip = _PAGES_PER_LOOK - 1
        return self._near

    def read(self, page: bytes) -> float | None:
        """Return its value, or None if it isn't there."""
        at = self.find(page)
        return self.gauge.read(page, at) if at >= 0 else None
