"""How often one endpoint is asked for its metrics: seldom where the picker's own requests explain what it reports."""

from typing import NamedTuple

# Requests on a page beyond the picker's own, absolute and as a share of the page's, that still count as explained. A
# page is up to a step old, so it shows requests that have just ended.
_TOLERATED, _TOLERATED_SHARE = 1.0, 0.1
# Factor of the interval after each page that the picker's own requests explain.
_GROWTH = 2.0
# Share of the interval after which an endpoint may be asked, because its turn comes only from time to time.
_EARLY = 0.9


class ScrapeInterval(NamedTuple):
    """The bounds of the time between two scrapes of an endpoint under traffic, in s. Equal bounds fix this time."""

    least_s: float
    most_s: float


class ScrapePace:
    """The present interval of one endpoint. Times are those of any one clock, in s."""

    __slots__ = ("_asked_at_s", "_bounds", "_own_before", "seconds")

    def __init__(self, bounds: ScrapeInterval) -> None:
        self._bounds = bounds
        self._asked_at_s = float("-inf")
        self._own_before = 0.0
        self.seconds = bounds.least_s

    def is_due(self, now_s: float) -> bool:
        return now_s - self._asked_at_s >= self.seconds * _EARLY

    def asked(self, now_s: float, own: float) -> None:
        """Take in that the endpoint is asked now, while it has so many of the picker's own requests."""
        self._asked_at_s, self._own_before = now_s, own

    def page_came(self, reported: float, own: float) -> None:
        """Take in how many requests the page reports, waiting and running, and how many the picker has there now."""
        foreign = reported - max(own, self._own_before)
        if foreign > max(_TOLERATED, _TOLERATED_SHARE * reported):
            self.quicken()
        else:
            self.seconds = min(self.seconds * _GROWTH, self._bounds.most_s)

    def quicken(self) -> None:
        """Ask as often as allowed, because the picker's own knowledge doesn't suffice."""
        self.seconds = self._bounds.least_s
