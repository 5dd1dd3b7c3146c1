"""Following the model store: what is new is loaded off the request path and swapped in.

What was published together, and each plain folder, is a unit: units load side by side, so that one which hangs or can't
be served never delays another. What failed is tried again at each look, and its reason is shown until it is mended.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store import Generation, ModelStore, StoreError
from predictor.engine import Engine, Served
from predictor.exceptions import ConflictError, ModelError, NotLoadedError
from predictor.loading import LIMITS, Limits
from predictor.published import load_published, publications
from predictor.triton_folders import load_plain, plain_models
from predictor.versions import AS_CONFIGURED, VersionPolicies

logger = logging.getLogger("headroom.predictor")

POLL, EXPLICIT, NONE = "poll", "explicit", "none"
CONTROL_MODES = (POLL, EXPLICIT, NONE)
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the store brought: `synced` something new was found, `loaded` it is being served."""

    synced: bool
    loaded: bool


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A line of the repository index; `state` is READY, LOADING or UNAVAILABLE."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Unit:
    names: Names
    identity: Hashable
    generation: Generation | None


class Repository:
    """All of it runs on the event loop, except for what touches files or the network."""

    def __init__(
        self,
        store: ModelStore,
        engine: Engine,
        mode: str = POLL,
        policies: VersionPolicies = AS_CONFIGURED,
        limits: Limits = LIMITS,
    ) -> None:
        self.mode = mode
        self.polls = 0
        self.loads = {"ok": 0, "failed": 0}
        self._store = store
        self._engine = engine
        self._policies = policies
        self._limits = limits
        self._root = Path(store.location) if "://" not in store.location else None
        self._stamp: Hashable = None
        self._generation: Generation | None = None
        self._store_error: str | None = None
        self._done: dict[str, Hashable] = {}
        self._failed: dict[Names, ModelError] = {}
        self._loading: dict[str, asyncio.Task[bool]] = {}
        self._seen: dict[str, _Unit] = {}
        self._unloaded: set[str] = set()
        self._looking = asyncio.Lock()

    async def start(self, names: Collection[str] = ()) -> None:
        """The first look, before the first request: a started predictor is a ready one.

        In `explicit` mode only the named models are loaded; `*` stands for all.
        """
        await self._look(lambda unit: self.mode != EXPLICIT)
        if self.mode == EXPLICIT:
            for name in self._seen if "*" in names else names:
                self._begin_alone(name)
        await self._settle()

    async def run(self, interval_s: float) -> None:
        """Polls until cancelled. A unit that takes long to load does not hold up the next look."""
        while True:
            await asyncio.sleep(interval_s)
            await self._look(lambda unit: True)

    async def reload(self) -> Look:
        """Looks at once, and waits for what that brings. Nothing new is looked for unless the mode is `poll`."""
        if self.mode != POLL:
            return Look(synced=False, loaded=False)
        look = await self._look(lambda unit: True)
        outcomes = await self._settle()
        return Look(synced=look, loaded=look and bool(outcomes) and all(outcomes))

    async def load(self, name: str) -> None:
        """Loads a model's newest versions; returns when they are served. NotLoadedError, ModelError."""
        self._refuse_unless_explicit()
        await self._look(lambda unit: False)
        while name in self._loading:
            await asyncio.wait({self._loading[name]})
        loading = self._begin_alone(name)
        if loading is None:
            raise NotLoadedError(f"no model {name!r} in {self._store.location}", any_loaded=True)
        if not await loading:
            raise self._failed.get((name,)) or ModelError(name, None, "could not be loaded")

    async def unload(self, name: str) -> None:
        """Takes a model away; what is being asked of it is still answered."""
        self._refuse_unless_explicit()
        self._engine.served(name)
        self._engine.swap({name: None})
        self._done.pop(name, None)
        self._unloaded.add(name)
        logger.info("unloaded %s", name)

    def index(self, ready_only: bool = False) -> list[IndexEntry]:
        """Every version that is served or was to be, and what has failed until it is mended."""
        entries = [
            IndexEntry(name, str(version), "READY", "")
            for name, served in self._engine.models.items()
            for version in served.versions
        ]
        if not ready_only:
            entries += self._not_ready()
        return sorted(entries, key=lambda entry: (entry.name, entry.version))

    @property
    def last_error(self) -> str | None:
        """Why the newest that the store holds is not served; None when all of it is."""
        if self._store_error:
            return self._store_error
        return "; ".join(str(error) for error in self._failed.values()) or None

    async def close(self) -> None:
        """Lets go of what is still loading."""
        tasks = set(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refuse_unless_explicit(self) -> None:
        if self.mode == POLL:
            raise ConflictError("explicit model load / unload is not allowed while the repository is polled")
        if self.mode == NONE:
            raise ConflictError("explicit model load / unload is not allowed in model control mode 'none'")

    def _not_ready(self) -> list[IndexEntry]:
        shown = [
            IndexEntry(error.model, str(error.version or ""), "UNAVAILABLE", str(error))
            for error in self._failed.values()
        ]
        told = {entry.name for entry in shown} | set(self._engine.models)
        loading = set(self._loading) - told
        shown += [IndexEntry(name, "", "LOADING", "") for name in loading]
        for name in set(self._seen) - told - loading:
            shown.append(IndexEntry(name, "", "UNAVAILABLE", "unloaded" if name in self._unloaded else "not loaded"))
        return shown

    async def _look(self, is_wanted: Callable[[_Unit], bool]) -> bool:
        """Begins to load what is new and wanted; whether there was any. One look at a time, lest an older one win."""
        async with self._looking:
            return await self._look_alone(is_wanted)

    async def _look_alone(self, is_wanted: Callable[[_Unit], bool]) -> bool:
        self.polls += 1
        try:
            units = await asyncio.to_thread(self._units)
        except (StoreError, OSError) as error:
            if str(error) != self._store_error:
                logger.error("can't read the model store, what is loaded keeps serving: %s", error)
            self._store_error = str(error)
            self.loads["failed"] += 1
            return True
        if self._store_error:
            logger.info("the model store is in order again")
        self._store_error = None
        self._seen = {name: unit for unit in units for name in unit.names}
        self._forget_removed()
        fresh = [unit for unit in units if is_wanted(unit) and self._is_new(unit)]
        for unit in fresh:
            self._begin(unit)
        return bool(fresh)

    def _units(self) -> list[_Unit]:
        """What the store holds now. The stamp comes first: what is published meanwhile is found at the next look."""
        stamp = self._store.stamp()
        if stamp != self._stamp:
            generation = self._store.current()
            if generation is None and self._generation:
                # A store is never emptied; a share that is not mounted looks like that.
                raise StoreError(f"{self._store.location} holds no generation any more; is it mounted?")
            self._generation, self._stamp = generation, stamp
        units = []
        published: Mapping[str, Hashable] = {}
        if self._generation:
            published = self._generation.models
            for names in publications(self._generation):
                refs = tuple(self._generation.models[name] for name in names)
                units.append(_Unit(names, (refs, self._policy_identity(names)), self._generation))
        plain = plain_models(self._root, published) if self._root else {}
        units += [_Unit((name,), stamp, None) for name, stamp in sorted(plain.items())]
        return units

    def _policy_identity(self, names: Names) -> Hashable:
        """Where older versions are served as well, every generation may change which."""
        latest = all(self._policies.of(name).is_latest for name in names)
        return None if latest or not self._generation else self._generation.generation

    def _forget_removed(self) -> None:
        removed = set(self._done) - set(self._seen) - set(self._loading)
        for name in removed:
            del self._done[name]
        if removed:
            logger.info("no longer in the model store: %s", ", ".join(sorted(removed)))
            self._engine.swap(dict.fromkeys(removed))
        known = set(self._seen)
        self._failed = {names: error for names, error in self._failed.items() if set(names) <= known}

    def _is_new(self, unit: _Unit) -> bool:
        if any(name in self._loading for name in unit.names):
            return False
        return any(self._done.get(name) != unit.identity for name in unit.names)

    def _begin_alone(self, name: str) -> Awaitable[bool] | None:
        """Begins to load a model whatever was published with it; None when the store has none of that name."""
        unit = self._seen.get(name)
        if unit is None:
            logger.error("no model %r in %s", name, self._store.location)
            return None
        return self._begin(_Unit((name,), unit.identity, unit.generation))

    def _begin(self, unit: _Unit) -> Awaitable[bool]:
        task = asyncio.create_task(self._load(unit))
        for name in unit.names:
            self._loading[name] = task
        return task

    async def _load(self, unit: _Unit) -> bool:
        """Whether the unit is now being served."""
        task = asyncio.current_task()
        try:
            before = self._engine.models
            models = await asyncio.to_thread(self._read, unit, before)
        except ModelError as error:
            self._report(unit, error)
            return False
        finally:
            self._loading = {name: other for name, other in self._loading.items() if other is not task}
        self._engine.swap(models)
        self._done.update(dict.fromkeys(unit.names, unit.identity))
        self._failed = {names: error for names, error in self._failed.items() if not set(names) & set(unit.names)}
        self._unloaded -= set(unit.names)
        self.loads["ok"] += 1
        served = ", ".join(f"{name}/{max(one.versions)}" for name, one in models.items())
        number = f" of generation {unit.generation.generation}" if unit.generation else ""
        logger.info("serving %s%s", served, number)
        return True

    def _read(self, unit: _Unit, before: Mapping[str, Served]) -> dict[str, Served]:
        if unit.generation:
            return load_published(self._store, unit.generation, unit.names, before, self._policies, self._limits)
        assert self._root  # noqa: S101 (plain models come from a folder)
        (name,) = unit.names
        return {name: load_plain(self._root, name, before.get(name), self._policies, self._limits)}

    def _report(self, unit: _Unit, error: ModelError) -> None:
        self.loads["failed"] += 1
        if str(error) != str(self._failed.get(unit.names)):
            logger.error("can't load %s, what is loaded keeps serving: %s", ", ".join(unit.names), error)
        self._failed[unit.names] = error

    async def _settle(self) -> list[bool]:
        """Waits for everything that is loading; whether each is now served."""
        return await asyncio.gather(*set(self._loading.values()))
