"""The repository: polls the model store, loads new models outside the request path, and swaps them into the engine.

A unit is a set of models that were published together, or one plain Triton folder. Units load in parallel, so a unit
that hangs or fails never delays another. Each poll retries failed units. The reason for a failure stays visible until
the unit loads.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store import Generation, ModelStore, StoreError, UntrustedError
from predictor.engine import Engine, Served
from predictor.exceptions import REFUSALS, ConflictError, ModelError, NotLoadedError
from predictor.opener import Opener
from predictor.published import load_published, publications
from predictor.triton_folders import folder_stamps, load_folder
from predictor.versions import AS_CONFIGURED, VersionPolicies
from serving.error_log import ErrorLog

logger = logging.getLogger("headroom.predictor")

POLL, EXPLICIT, NONE = "poll", "explicit", "none"
CONTROL_MODES = (POLL, EXPLICIT, NONE)
Names = tuple[str, ...]
# A poll that takes longer is told in the log, until one takes less than the second time. In seconds.
_SLOW_POLL_S, _FAST_POLL_S = 1.5, 0.75


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of one poll. `synced`: something new was found; `loaded`: all of it is served now."""

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
    """Keeps the engine's models in step with the store. Only file and network access run outside the event loop."""

    def __init__(
        self,
        store: ModelStore,
        engine: Engine,
        mode: str = POLL,
        policies: VersionPolicies = AS_CONFIGURED,
        opener: Opener | None = None,
    ) -> None:
        self.mode = mode
        self.polls = 0
        self.loads = {"ok": 0, "failed": 0}
        self.refusals = dict.fromkeys(REFUSALS, 0)
        self._read_at = time.monotonic()
        self._is_slow = False
        self._store = store
        self._engine = engine
        self._policies = policies
        self._opener = opener or Opener()
        # Plain Triton folders have no signature.
        self._root = Path(store.location) if "://" not in store.location and not store.verifies else None
        self._stamp: Hashable = None
        self._generation: Generation | None = None
        self._store_errors = ErrorLog(logger)
        self._loaded: dict[str, Hashable] = {}
        self._failed: dict[Names, ModelError] = {}
        self._loading: dict[str, asyncio.Task[bool]] = {}
        self._seen: dict[str, _Unit] = {}
        self._unloaded: set[str] = set()
        self._poll_lock = asyncio.Lock()

    async def start(self, names: Collection[str] = ()) -> None:
        """Poll for the first time and wait for the loads, so that a started predictor is ready.

        In `explicit` mode only the named models are loaded; `*` means all.
        """
        await self._poll(lambda unit: self.mode != EXPLICIT)
        if self.mode == EXPLICIT:
            for name in self._seen if "*" in names else names:
                self._begin_single(name)
        await self._wait_for_loads()

    async def run(self, interval_s: float) -> None:
        """Poll until cancelled. A unit that takes long to load does not delay the next poll."""
        while True:
            await asyncio.sleep(interval_s)
            await self._poll(lambda unit: True)

    async def reload(self) -> SyncResult:
        """Poll now and wait for the loads. Do nothing unless the mode is `poll`."""
        if self.mode != POLL:
            return SyncResult(synced=False, loaded=False)
        async with self._poll_lock:
            earlier = set(self._loading.values())
            found = await self._poll_locked(lambda unit: True)
            overtaken = earlier & set(self._loading.values())
        outcomes = await self._wait_for_loads()
        if overtaken:
            # These loads began before this call, and may be of an older generation.
            found |= await self._poll(lambda unit: True)
            outcomes += await self._wait_for_loads()
        return SyncResult(synced=found, loaded=found and bool(outcomes) and all(outcomes))

    async def load(self, name: str) -> None:
        """Load a model's newest versions; return once they are served. Raise NotLoadedError or ModelError."""
        self._refuse_unless_explicit()
        await self._poll(lambda unit: False)
        while name in self._loading:
            await asyncio.wait({self._loading[name]})
        loading = self._begin_single(name)
        if loading is None:
            raise NotLoadedError(f"no model {name!r} in {self._store.location}", any_loaded=True)
        if not await loading:
            raise self._failed.get((name,)) or ModelError(name, None, "could not be loaded")

    async def unload(self, name: str) -> None:
        """Remove a model from service. Requests that it is answering still finish."""
        self._refuse_unless_explicit()
        self._engine.served_model(name)
        self._engine.swap({name: None})
        self._loaded.pop(name, None)
        self._unloaded.add(name)
        logger.info("unloaded %s", name)

    def index(self, ready_only: bool = False) -> list[IndexEntry]:
        """List the served versions, and unless `ready_only` the loading, failed and unloaded ones too."""
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
        """The reasons why newest models of the store are not served, or None if all are."""
        if self._store_errors.last is not None:
            return self._store_errors.last
        return "; ".join(str(error) for error in self._failed.values()) or None

    @property
    def poll_age_s(self) -> float:
        """Seconds since the store was last read."""
        return time.monotonic() - self._read_at

    async def close(self) -> None:
        """Cancel loads that are still running, and end the processes that try models."""
        tasks = set(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._opener.close)

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
        listed = {entry.name for entry in shown} | set(self._engine.models)
        loading = set(self._loading) - listed
        shown += [IndexEntry(name, "", "LOADING", "") for name in loading]
        for name in set(self._seen) - listed - loading:
            shown.append(IndexEntry(name, "", "UNAVAILABLE", "unloaded" if name in self._unloaded else "not loaded"))
        return shown

    async def _poll(self, is_wanted: Callable[[_Unit], bool]) -> bool:
        """Begin to load new units that are wanted; return true if there were any.

        Polls run one at a time, so that the result of an older poll never replaces that of a newer one.
        """
        async with self._poll_lock:
            return await self._poll_locked(is_wanted)

    async def _poll_locked(self, is_wanted: Callable[[_Unit], bool]) -> bool:
        self.polls += 1
        try:
            units = await self._read_units()
        except (StoreError, OSError) as error:
            self._store_errors.failed(error, "can't read the model store; the loaded models keep serving: %s", error)
            self.loads["failed"] += 1
            self.refusals["signature" if isinstance(error, UntrustedError) else "store"] += 1
            return True
        if self._store_errors.succeeded():
            logger.info("the model store is readable again")
        self._seen = {name: unit for unit in units for name in unit.names}
        self._forget_removed()
        fresh = [unit for unit in units if is_wanted(unit) and self._is_new(unit)]
        for unit in fresh:
            self._begin(unit)
        return bool(fresh)

    async def _read_units(self) -> list[_Unit]:
        """Read the store's units in a thread. Log once that the store is slow, already while it is."""
        began_at = time.monotonic()
        reading = asyncio.create_task(asyncio.to_thread(self._units))
        try:
            await asyncio.wait({reading}, timeout=_SLOW_POLL_S)
            if not reading.done() and not self._is_slow:
                self._is_slow = True
                logger.warning(
                    "the model store is slow: no answer in %g s; the loaded models keep serving", _SLOW_POLL_S
                )
            units = await reading
        finally:
            reading.cancel()
        self._read_at = time.monotonic()
        if self._is_slow and self._read_at - began_at < _FAST_POLL_S:
            self._is_slow = False
            logger.info("the model store is fast again")
        return units

    def _units(self) -> list[_Unit]:
        """Read the store's units. The stamp is read first, so the next poll finds what is published meanwhile."""
        stamp = self._store.stamp()
        if stamp != self._stamp:
            generation = self._store.current()
            if generation is None and self._generation:
                # Nothing ever empties a store, but a share that is not mounted looks empty.
                raise StoreError(f"{self._store.location} no longer holds a generation; is it mounted?")
            self._generation, self._stamp = generation, stamp
        units = []
        published: Mapping[str, Hashable] = {}
        if self._generation:
            published = self._generation.models
            for names in publications(self._generation):
                refs = tuple(self._generation.models[name] for name in names)
                units.append(_Unit(names, (refs, self._policy_identity(names)), self._generation))
        folders = folder_stamps(self._root, published) if self._root else {}
        units += [_Unit((name,), stamp, None) for name, stamp in sorted(folders.items())]
        return units

    def _policy_identity(self, names: Names) -> Hashable:
        """Return the generation's number if older versions are served too: each generation may change which ones."""
        latest = all(self._policies.policy_of(name).is_latest for name in names)
        return None if latest or not self._generation else self._generation.generation

    def _forget_removed(self) -> None:
        removed = set(self._loaded) - set(self._seen) - set(self._loading)
        for name in removed:
            del self._loaded[name]
        if removed:
            logger.info("no longer in the model store: %s", ", ".join(sorted(removed)))
            self._engine.swap(dict.fromkeys(removed))
        known = set(self._seen)
        self._failed = {names: error for names, error in self._failed.items() if set(names) <= known}

    def _is_new(self, unit: _Unit) -> bool:
        if any(name in self._loading for name in unit.names):
            return False
        return any(self._loaded.get(name) != unit.identity for name in unit.names)

    def _begin_single(self, name: str) -> Awaitable[bool] | None:
        """Begin to load one model without those published with it; return None if the store has no such model."""
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
        """Load a unit and swap it in; return true if it is served now."""
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
        self._loaded.update(dict.fromkeys(unit.names, unit.identity))
        self._failed = {names: error for names, error in self._failed.items() if not set(names) & set(unit.names)}
        self._unloaded -= set(unit.names)
        self.loads["ok"] += 1
        served = ", ".join(f"{name}/{max(one.versions)}" for name, one in models.items())
        number = f" of generation {unit.generation.generation}" if unit.generation else ""
        logger.info("serving %s%s", served, number)
        return True

    def _read(self, unit: _Unit, before: Mapping[str, Served]) -> dict[str, Served]:
        if unit.generation:
            return load_published(self._store, unit.generation, unit.names, before, self._policies, self._opener)
        assert self._root  # noqa: S101 (only a folder store has plain Triton folders)
        (name,) = unit.names
        return {name: load_folder(self._root, name, before.get(name), self._policies, self._opener)}

    def _report(self, unit: _Unit, error: ModelError) -> None:
        self.loads["failed"] += 1
        self.refusals[error.kind] += 1
        if str(error) != str(self._failed.get(unit.names)):
            logger.error("can't load %s; the loaded models keep serving: %s", ", ".join(unit.names), error)
        self._failed[unit.names] = error

    async def _wait_for_loads(self) -> list[bool]:
        """Wait for all running loads; return for each whether its unit is served now."""
        return await asyncio.gather(*set(self._loading.values()))
