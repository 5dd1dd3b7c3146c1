"""A copy of the API server's objects of one kind, kept current by a watch."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from epp.kubernetes.client import Client, Selection
from epp.kubernetes.exceptions import ApiError, ExpiredError, KubernetesError
from epp.kubernetes.objects import Resource
from serving.error_log import ErrorLog

logger = logging.getLogger("headroom.epp.kubernetes")

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# Seconds. A watch that ends sooner without an event counts as failed, or it would be opened again at once for ever.
_SHORT_WATCH_S = 5.0
# The server is busy or starting: the watch continues later from the same version.
_PASSING = {429, 500, 502, 503}
_ADVICE = {
    403: ": the service account needs a role that allows it",
    404: ": the custom resource definition must be installed",
}


@dataclass(slots=True)
class WatchCounts:
    """Counts of a reflector's events; several reflectors may share one."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    expired: int = 0
    failures: int = 0


class Reflector(Generic[T]):
    """Keeps `items` by name equal to the objects of a resource. `items` are complete once `synced`.

    A list is followed by a watch from the list's version on. When a watch ends, the next one continues from the last
    version seen, which bookmarks keep recent. If the server no longer has that part of the history (410), or refuses
    for another reason, everything is listed again, and the list replaces all items at once. While the API server is
    unreachable, `items` stay as they were.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        selection: Selection,
        changed: Callable[[], None],
        counts: WatchCounts,
    ) -> None:
        self._client = client
        self._resource = resource
        self._selection = selection
        self._changed = changed
        self._counts = counts
        self._version = ""
        self._errors = ErrorLog(logger, logging.WARNING)
        self._has_delivered = False
        self.items: dict[str, T] = {}
        self.synced = False

    async def run(self) -> None:
        """List and watch until cancelled."""
        failures = 0
        while True:
            started_at, self._has_delivered = time.monotonic(), False
            try:
                await self._follow()
            except ExpiredError as error:
                # The server is back, so the next list need not wait as long as after the failures before.
                failures = min(failures, 1)
                self._start_over(error)
            except KubernetesError as error:
                self._note(error)
            lived = self._has_delivered or time.monotonic() - started_at > _SHORT_WATCH_S
            failures = 0 if lived else failures + 1
            await asyncio.sleep(_pause_s(failures))

    async def _follow(self) -> None:
        if not self._version:
            await self._list()
        self._counts.watches += 1
        watch = self._client.watch(self._resource, self._selection, self._version)
        async with aclosing(watch) as events:
            async for event in events:
                self._counts.events += 1
                self._has_delivered = True
                self._recover()
                self._version = event.version
                if event.name:
                    self._apply(event.name, event.object)

    async def _list(self) -> None:
        self._counts.lists += 1
        listing = await self._client.list(self._resource, self._selection)
        self._recover()
        self.items, self._version, self.synced = listing.items, listing.version, True
        self._changed()

    def _apply(self, name: str, item: T | None) -> None:
        if item is not None:
            self.items[name] = item
        else:
            self.items.pop(name, None)
        self._changed()

    def _start_over(self, error: ExpiredError) -> None:
        self._version = ""
        self._counts.expired += 1
        logger.info("%s in %s: listing again, %s", self._resource.plural, self._selection.namespace, error)

    def _note(self, error: KubernetesError) -> None:
        if isinstance(error, ApiError) and error.status not in _PASSING:
            self._version = ""
        self._counts.failures += 1
        advice = _ADVICE.get(error.status, "") if isinstance(error, ApiError) else ""
        where = f"{self._resource.plural}.{self._resource.group}".rstrip(".")
        self._errors.failed(error, "%s in %s: %s; trying again%s", where, self._selection.namespace, error, advice)

    def _recover(self) -> None:
        if self._errors.succeeded():
            logger.info("%s in %s: the API server answers again", self._resource.plural, self._selection.namespace)


def _pause_s(failures: int) -> float:
    longest = min(_FIRST_PAUSE_S * 2 ** min(failures, 10), _LONGEST_PAUSE_S)
    return random.uniform(longest / 2, longest)
