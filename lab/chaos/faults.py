"""The faults: what breaks, how it begins, and how it ends."""

import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final, Literal

from headroom.processes.supervisor import Supervisor
from lab.chaos import limits, relay
from lab.chaos.bucket import WAYS, BucketServer
from lab.chaos.links import LINKS, Links
from lab.chaos.rogue import ANSWERS, Rogue
from lab.chaos.store_faults import STORE_FAULTS, VOLUME_FAULTS, End
from lab.loop.stack import StackConfig

_FROZEN, _KILLED = signal.SIGSTOP, signal.SIGKILL
_VERBS: Final = {"freeze": _FROZEN, "kill": _KILLED}


# The loop's models lie in a folder or in a bucket. `relayed`: in a folder, with relays between the parts.
LoopKind = Literal["folder", "bucket", "relayed"]
KINDS: Final[tuple[LoopKind, ...]] = ("folder", "bucket", "relayed")


@dataclass(frozen=True)
class Site:
    """The running loop that a fault breaks. `bucket` is the server of its model store, None for a store in a folder.

    `links` are the relays between its parts, None if they reach each other directly.
    """

    config: StackConfig
    supervisor: Supervisor
    bucket: BucketServer | None = None
    links: Links | None = None

    def processes(self, part: str) -> Sequence[str]:
        """Return the names of the processes that a part of the table stands for."""
        predictors = [f"predictor-{n}" for n in range(1, len(self.config.ports.predictors) + 1)]
        names = {"picker": ["epp"], "trainer": ["trainer"], "envoy": ["envoy"], "server": [self.config.server_names[0]]}
        return {**names, "predictor": predictors[:1], "predictors": predictors}[part]


@dataclass(frozen=True)
class Fault:
    """A fault. `begin` causes it and returns what ends it.

    `open_promise`: no request may be lost through it, when Envoy fails open. The loss of a proxy or a model server is
    not the picker's. `kind` is the kind of loop that the fault needs. `needs_mounts`: the loop must have mounts of its
    own.
    """

    name: str
    begin: Callable[[Site], Awaitable[Callable[[], Awaitable[None]]]]
    open_promise: bool = True
    kind: LoopKind = "folder"
    needs_mounts: bool = False


def faults() -> list[Fault]:
    """Return every fault, in the order of the table."""
    return [*_losses(), *_stores(), *_rogues(), *_networks(), *_limits()]


def _losses() -> Iterator[Fault]:
    """Yield a freeze and a kill of every part and of every pair."""
    parts = ("picker", "trainer", "predictor", "predictors", "server", "envoy")
    pairs = [pair for pair in combinations(parts, 2) if pair != ("predictor", "predictors")]
    for broken in [*((part,) for part in parts), *pairs]:
        for verb in _VERBS:
            yield Fault(
                f"{verb} {' and '.join(broken)}",
                _loss(verb, broken),
                open_promise=not {"server", "envoy"} & set(broken),
            )


def _loss(verb: str, broken: Sequence[str]) -> Callable[[Site], Awaitable[Callable[[], Awaitable[None]]]]:
    async def begin(site: Site) -> Callable[[], Awaitable[None]]:
        names = [name for part in broken for name in site.processes(part)]
        for name in names:
            site.supervisor.kill(name, _VERBS[verb])

        async def end() -> None:
            if verb == "freeze":
                for name in names:
                    site.supervisor.kill(name, signal.SIGCONT)
            else:
                await site.supervisor.restart(names)

        return end

    return begin


def _stores() -> Iterator[Fault]:
    for name, spoil in STORE_FAULTS.items():
        yield Fault(f"store: {name}", _store(spoil))
    for name, spoil in VOLUME_FAULTS.items():
        yield Fault(f"store: {name}", _store(spoil), needs_mounts=True)
    for way in WAYS:
        yield Fault(f"S3: {way}", _bucket(way), kind="bucket")


def _store(spoil: Callable[[Path], End]) -> Callable[[Site], Awaitable[Callable[[], Awaitable[None]]]]:
    async def begin(site: Site) -> Callable[[], Awaitable[None]]:
        mend = spoil(site.config.store)

        async def end() -> None:
            mend()

        return end

    return begin


def _bucket(way: str) -> Callable[[Site], Awaitable[Callable[[], Awaitable[None]]]]:
    async def begin(site: Site) -> Callable[[], Awaitable[None]]:
        assert site.bucket
        await site.bucket.misbehave(way)
        return site.bucket.behave

    return begin


async def _none(site: Site) -> Callable[[], Awaitable[None]]:
    """Begin no fault."""
    return _nothing


async def _nothing() -> None:
    """End a fault that is over already."""


def _rogues() -> Iterator[Fault]:
    """Yield a model server that answers wrongly, in every way that the rogue knows."""
    for way in ANSWERS:
        yield Fault(f"server: {way}", _rogue(way), open_promise=False)


def _rogue(way: str) -> Callable[[Site], Awaitable[Callable[[], Awaitable[None]]]]:
    async def begin(site: Site) -> Callable[[], Awaitable[None]]:
        names = site.processes("server")
        await site.supervisor.end(names)
        rogue = Rogue(site.config.ports.first_server, way)
        await rogue.start()

        async def end() -> None:
            await rogue.stop()
            await site.supervisor.restart(names)

        return end

    return begin


def _networks() -> Iterator[Fault]:
    """Yield a disturbed network between any two parts."""
    for link in LINKS:
        for way in relay.WAYS:
            yield Fault(
                f"network: {link} {way}", _network(link, way), open_promise=link != "Envoy and server", kind="relayed"
            )


def _network(link: str, way: str) -> Callable[[Site], Awaitable[Callable[[], Awaitable[None]]]]:
    async def begin(site: Site) -> Callable[[], Awaitable[None]]:
        links = site.links
        assert links
        links.breaks(link, way)

        async def end() -> None:
            links.mend(link)

        return end

    return begin


def _limits() -> Iterator[Fault]:
    """Yield processes at the limits of descriptors and of memory."""
    for part in ("picker", "trainer", "predictor", "predictors"):
        yield Fault(f"descriptors: none left for the {part}", _limit(part, limits.exhaust_descriptors))
    for part in ("trainer", "predictors"):
        yield Fault(f"memory: none left for the {part}", _limit(part, limits.exhaust_memory))


def _limit(
    part: str, exhaust: Callable[[Sequence[int]], Callable[[], None]]
) -> Callable[[Site], Awaitable[Callable[[], Awaitable[None]]]]:
    async def begin(site: Site) -> Callable[[], Awaitable[None]]:
        pids = [site.supervisor.pid(name) for name in site.processes(part)]
        lift = exhaust([one for pid in pids for one in (pid, *limits.children_of(pid))])

        async def end() -> None:
            lift()

        return end

    return begin


NO_FAULT: Final = Fault("none", _none)
"""Measures the loop as it is."""
