"""Send many concurrent requests through a gateway; clients abort some of them."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.envoy.backends import ANSWER, EVENTS

PATH = "/v1/completions"
EXPECTED = {"json": ANSWER, "events=60": EVENTS, "events=7": EVENTS, "events=60,10": EVENTS}


@dataclass(frozen=True)
class Ask:
    """A planned request. The client aborts after `leave_after_s` if the answer is not complete by then."""

    number: int
    act: str
    leave_after_s: float | None = None

    @property
    def body(self) -> bytes:
        return b'{"model": "m", "stream": true, "prompt": "%s"}' % (b"prompt %d " % (self.number % 50) * 30)


@dataclass
class Outcomes:
    """Counts of results. `wrong` describes every answer that differs from the backend's complete answer.

    `pause_s` may be changed at any time: seconds that each worker waits between two requests.
    """

    right: int = 0
    aborted: int = 0
    wrong: list[str] = field(default_factory=list)
    pause_s: float = 0.0

    @property
    def total(self) -> int:
        return self.right + self.aborted + len(self.wrong)

    async def reach(self, total: int) -> None:
        while self.total < total:
            await asyncio.sleep(0.01)


def asks(seed: int, abort_share: float = 0.0) -> Iterator[Ask]:
    """Yield requests without end. The seed determines the order."""
    rng = random.Random(seed)
    for number in itertools.count():
        leaves = rng.random() < abort_share
        yield Ask(number, rng.choice(list(EXPECTED)), rng.uniform(0, 0.06) if leaves else None)


async def send_all(
    url: str, plan: Iterator[Ask], outcomes: Outcomes, *, workers: int, headers: Mapping[str, str] | None = None
) -> None:
    """Send the planned requests, `workers` at a time."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def work() -> None:
            for ask in plan:
                await _send(session, url + PATH, ask, outcomes)
                await asyncio.sleep(outcomes.pause_s)

        await asyncio.gather(*(work() for _ in range(workers)))


@asynccontextmanager
async def load(url: str, *, workers: int = 8, headers: Mapping[str, str] | None = None) -> AsyncIterator[Outcomes]:
    """Keep sending until the block is left, then wait for the requests in flight."""
    stopped = asyncio.Event()
    outcomes = Outcomes()
    plan = itertools.takewhile(lambda _: not stopped.is_set(), asks(seed=1))
    sending = asyncio.create_task(send_all(url, plan, outcomes, workers=workers, headers=headers))
    try:
        yield outcomes
    finally:
        stopped.set()
        await sending


async def _send(session: aiohttp.ClientSession, url: str, ask: Ask, outcomes: Outcomes) -> None:
    headers = {"x-act": ask.act, "content-type": "application/json"}
    try:
        async with asyncio.timeout(ask.leave_after_s), session.post(url, data=ask.body, headers=headers) as response:
            body = await response.read()
    except TimeoutError:
        outcomes.aborted += 1
    except aiohttp.ClientError as error:
        outcomes.wrong.append(f"{ask}: {error!r}")
    else:
        if (response.status, body) == (200, EXPECTED[ask.act]):
            outcomes.right += 1
        else:
            outcomes.wrong.append(f"{ask}: {response.status} {body[:200]!r}")
