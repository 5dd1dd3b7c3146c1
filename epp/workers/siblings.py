"""Answer for all workers of a port, from any of them."""

import asyncio
import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import aiohttp
import msgspec
from prometheus_client.utils import floatToGoString

from serving.workers import Place

logger = logging.getLogger("headroom.epp.workers")

# Lines of the workers' pages that one turn of the event loop merges, in 1 ms.
_LINES_A_TURN = 1000
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
        pages = [own, *await self.ask_all("/metrics")]
        pieces = []
        for piece in merge_in_pieces([page.decode() for page in pages]):
            pieces.append(piece)
            await asyncio.sleep(0)
        return "".join(pieces).encode()

    async def decisions(self, own: list[dict[str, Any]], query: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest decisions of all workers."""
        found = list(own)
        for answer in await self.ask_all(f"/debug/decisions?{query}"):
            found += msgspec.json.decode(answer)["decisions"]
        return sorted(found, key=lambda decision: -float(decision["decided_at"]))[:limit]

    def _socket(self, index: int) -> str:
        return str(self._place.folder / f"worker-{index}.sock")

    async def ask_all(self, path: str, body: bytes | None = None) -> list[bytes]:
        """Return the answers of all others that have one. With a body, send it by POST."""
        others = (index for index in range(self._place.count) if index != self._place.index)
        answers = await asyncio.gather(*(self._ask(index, path, body) for index in others))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, index: int, path: str, body: bytes | None) -> bytes | None:
        """Ask one worker; return None while it is being replaced, and if it has no answer."""
        connector = aiohttp.UnixConnector(self._socket(index))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
                session.request("POST" if body else "GET", f"http://worker{path}", data=body) as response,
            ):
                answer = await response.read()
                return answer if response.ok else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.warning("worker %d doesn't answer: %s", index, error or type(error).__name__)
            return None


def merge_pages(pages: Sequence[str]) -> bytes:
    """Merge metrics pages: add up counters and histograms, and gauges of which each worker has a part."""
    return "".join(merge_in_pieces(pages)).encode()


def merge_in_pieces(pages: Sequence[str]) -> Iterator[str]:
    """Yield the merged page in pieces, each after a bounded amount of work; some are empty."""
    families: dict[str, _MergedFamily] = {}
    family, description = _MergedFamily("", ""), ""
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            if line.startswith("# HELP "):
                description = line
            elif line.startswith("# TYPE "):
                family = families.setdefault(line, _MergedFamily(description, line))
            elif line:
                series, _, value = line.rpartition(" ")
                family.add(series, float(value))
            if number % _LINES_A_TURN == 0:
                yield ""
    for family in families.values():
        yield family.page()


class _MergedFamily:
    """All series of one name, by name and labels as their lines have them."""

    def __init__(self, description: str, kind: str) -> None:
        self._head = f"{description}\n{kind}\n"
        name, _, kind = kind.removeprefix("# TYPE ").partition(" ")
        self._choose: Callable[[float, float], float] = operator.add
        if name.endswith("_created"):
            self._choose = min
        elif kind == "gauge" and name not in _ADDED_GAUGES:
            self._choose = max
        self._values: dict[str, float] = {}

    def add(self, series: str, value: float) -> None:
        known = self._values.get(series)
        self._values[series] = value if known is None else self._choose(known, value)

    def page(self) -> str:
        return self._head + "".join([f"{series} {floatToGoString(value)}\n" for series, value in self._values.items()])  # type: ignore[no-untyped-call]
