"""One endpoint as the scraper sees it: its connection, the time of its last page, and its failures."""

import asyncio
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from epp.exceptions import ScrapeError
from epp.scheduling.snapshot import Endpoint
from epp.scraping.pace import ScrapePace
from epp.scraping.page_access import CA_FLAG
from epp.scraping.page_address import PageAddress
from epp.scraping.page_connection import PageConnection
from epp.scraping.page_reader import Load, PageReader
from serving.tls_errors import describe_tls_error

_FIRST_BACKOFF_S = 0.1


@dataclass(frozen=True, slots=True)
class ScrapeTimeouts:
    """Seconds to wait for a connection, for a page, and at most between two tries after failures."""

    connect_s: float = 2.0
    page_s: float = 5.0
    backoff_s: float = 3.0


@dataclass(slots=True)
class ScrapeCounts:
    """Counts since the start. `failures` are by kind: connect, timeout, status and page."""

    pages: int = 0
    page_bytes: int = 0
    rejected_values: int = 0
    connections: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("connect", "timeout", "status", "page"), 0))

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


class ScrapeTarget:
    """Asks an endpoint for its page when told to, unless it still awaits one or has just failed."""

    def __init__(
        self,
        endpoint: Endpoint,
        address: PageAddress,
        reader: PageReader,
        timeouts: ScrapeTimeouts,
        counts: ScrapeCounts,
        pace: ScrapePace,
        record: Callable[["ScrapeTarget", Load], None],
    ) -> None:
        self.endpoint = endpoint
        self.address = address
        self.reader = reader
        self.pace = pace
        self.stale = False
        self.last_error: ScrapeError | None = None
        self._timeouts = timeouts
        self._counts = counts
        self._record = record
        self._connection: PageConnection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._deadline: float | None = None
        self._retry_at = 0.0
        self._failures = 0
        self.page_at = time.monotonic()

    def ask(self, now: float, own: float) -> None:
        """Ask for the page if it is time to; `now` is a time of the monotonic clock.

        `own` is the number of the picker's own requests on the endpoint.
        """
        if self._deadline is not None or now < self._retry_at:
            return
        self.pace.asked(now, own)
        if self._connection is None:
            self._open(now)
        else:
            self._deadline = now + self._timeouts.page_s
            self._connection.ask(self.address.request)

    def expire(self, now: float) -> None:
        """Give up a request that takes too long."""
        if self._deadline is not None and now >= self._deadline:
            kind, what = ("connect", "connection") if self._opening else ("timeout", "whole page")
            self.close()
            self.page_failed(ScrapeError(kind, f"no {what} in time"), True)

    def close(self) -> None:
        """Drop the connection and the page that it awaits."""
        if self._opening is not None and self._opening is not asyncio.current_task():
            self._opening.cancel()
        if self._connection is not None:
            self._connection.close()
        self._opening = self._connection = self._deadline = None

    # The connection's callbacks

    def connection_began(self) -> None:
        self._opening = None
        self._counts.connections += 1
        self._deadline = time.monotonic() + self._timeouts.page_s

    def connection_ended(self) -> None:
        self._connection = None

    def page_came(self, page: bytes) -> None:
        self._deadline = None
        self._counts.page_bytes += len(page)
        try:
            load = self.reader.read(page)
        except ScrapeError as error:
            self.page_failed(error, True)
            return
        self._counts.pages += 1
        self._failures, self.last_error = 0, None
        self.page_at = time.monotonic()
        self._record(self, load)

    def page_failed(self, error: ScrapeError, fresh: bool) -> None:
        now = time.monotonic()
        if not fresh:
            # A server may close an idle connection just when the picker uses it again.
            self._open(now)
            return
        self._deadline = None
        self._counts.failures[error.kind] += 1
        self.last_error = error
        self.pace.quicken()
        self._failures += 1
        pause_s = min(_FIRST_BACKOFF_S * 2 ** min(self._failures - 1, 16), self._timeouts.backoff_s)
        self._retry_at = now + pause_s * random.uniform(0.75, 1.0)

    # Opening

    def _open(self, now: float) -> None:
        self._deadline = now + self._timeouts.connect_s
        self._connection = PageConnection(self.address.request, self)
        self._opening = asyncio.get_running_loop().create_task(self._connect(self._connection))

    async def _connect(self, connection: PageConnection) -> None:
        address = self.address
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address.host,
                address.port,
                ssl=address.tls,
                server_hostname=address.server_name,
            )
        except (OSError, UnicodeError) as error:
            if self._connection is connection:
                self.close()
                self.page_failed(ScrapeError("connect", f"can't connect: {_reason(error)}"), True)


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLError):
        return describe_tls_error(error, CA_FLAG)
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
