"""The training loop: runs a pass at most once per interval, only after new samples, and outside the event loop."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from model_store import DamagedError, Generation, ModelStore, NotFoundError, StoreError, UntrustedError
from serving.error_log import ErrorLog
from trainer.canary import Canary
from trainer.exceptions import GraphError
from trainer.graph import Graph
from trainer.history import History
from trainer.job import FittedModel
from trainer.metrics import Metrics
from trainer.prefixes import summarise
from trainer.training_pass import Learn, PassResult, PassSettings, publish, read_graphs, run_pass
from trainer.window import Window

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("headroom.trainer")

# Refused passes to keep for /data/status.
_KEPT_REFUSALS = 10
# Seconds between renewals of the lead; on S3 a lease runs out after 15 s.
_RENEWAL_S = 5.0
# A publication that takes longer is told in the log, until one takes less.
_SLOW_PUBLICATION_S = 5.0
# Outcomes after which a pass is tried again without new samples.
_RETRIED_OUTCOMES = ("failed", "standby")
# Outcomes that have a reason but judge no model.
_NOT_REFUSALS = ("too_few_samples", "standby")


class Retraining:
    """The training loop, the models it has published, and the results of its last passes."""

    def __init__(
        self,
        window: Window,
        store: ModelStore,
        metrics: Metrics,
        settings: PassSettings,
        interval_s: float,
        learn: Learn,
    ) -> None:
        self._window = window
        self._store = store
        self._metrics = metrics
        self._settings = settings
        self._interval_s = interval_s
        self._learn = learn
        self._served_onnx: dict[str, bytes] = {}
        self._stamp: Hashable = None
        self._read_errors = ErrorLog(logger)
        self._lead_errors = ErrorLog(logger, logging.WARNING)
        self._is_slow = False
        self._current: Generation | None = None
        self._fitted_version = 0
        self._leads = False
        self._canary = Canary(settings.canary_rows, settings.job.tolerance)
        self._threads: set[asyncio.Task[object]] = set()
        self.served: dict[str, Graph] = {}
        self.published: dict[str, FittedModel] = {}
        self.law_began_at: dict[str, int] = {}
        self.generation: int | None = None
        self.last_pass: PassResult | None = None
        self.refused: deque[PassResult] = deque(maxlen=_KEPT_REFUSALS)
        self.history = History()

    @property
    def ready(self) -> bool:
        return self.generation is not None

    async def run(self) -> None:
        """Run passes until cancelled."""
        while True:
            await self._load_current()
            await self._roll_back_worse()
            await asyncio.sleep(self._interval_s)
            version = self._window.version
            if version == self._fitted_version:
                continue
            result = await self._pass()
            await self._record(result)
            if result.outcome not in _RETRIED_OUTCOMES:
                self._fitted_version = version

    async def keep_lead(self) -> None:
        """Renew the lead between passes, until cancelled."""
        while True:
            await asyncio.sleep(_RENEWAL_S)
            if not self._leads:
                continue
            try:
                self._leads = await self._in_thread(self._store.lead, self._settings.job.trainer_id)
                self._lead_errors.succeeded()
            except StoreError as error:
                self._metrics.failures.labels("lead").inc()
                self._lead_errors.failed(error, "can't renew the lead of the model store: %s", error)

    async def end(self) -> None:
        """Wait for work in threads, then give up the lead. Call this after cancelling the tasks."""
        await asyncio.gather(*self._threads, return_exceptions=True)
        await asyncio.to_thread(self._store.resign)

    async def _load_current(self) -> None:
        """Load the generation in force, if it has changed, as the one that new models are compared with.

        It changes by another trainer's publication, by a rollback, or with the whole store. If it can't be read, the
        next pass compares with the generation loaded before.
        """
        try:
            stamp = await self._in_thread(self._store.stamp)
            if stamp == self._stamp:
                return
            generation = await self._read_pointer()
            if generation != self._current:
                await self._tell_replacement(generation)
            if generation is not None and generation != self._current:
                await self._serve(await self._in_thread(read_graphs, self._store, generation))
                self._follow(generation)
                self._canary.forget()
                logger.info("loaded generation %d as the one to compare with", generation.generation)
            self._stamp = stamp
            self._read_errors.succeeded()
        except (StoreError, GraphError) as error:
            self._metrics.failures.labels("read").inc()
            self._read_errors.failed(error, "can't read the generation in force: %s", error)

    def _follow(self, generation: Generation) -> None:
        self._current, self.generation = generation, generation.generation

    async def _tell_replacement(self, found: Generation | None) -> None:
        """Tell that the store has another history now. A rollback leaves the record of the newest generation."""
        before = self._current
        # With one generation to keep, every publication removes the record of the one before.
        if before is None or not self._leads or self._settings.keep_generations < 2:
            return
        try:
            if await self._in_thread(self._store.generation, before.generation) == before:
                return
        except (NotFoundError, DamagedError, UntrustedError):
            pass
        self._metrics.store_replacements.inc()
        logger.error(
            "the model store was replaced: it no longer has the published generation %d; in force now: %s",
            before.generation,
            f"generation {found.generation}" if found else "none",
        )
        if found is None:
            self._current = None

    async def _read_pointer(self) -> Generation | None:
        """Return the generation in force. A leading trainer first repairs a damaged or untrusted pointer."""
        try:
            return await self._in_thread(self._store.current)
        except (DamagedError, UntrustedError) as error:
            self._leads = await self._in_thread(self._store.lead, self._settings.job.trainer_id)
            if not self._leads:
                raise
            repair = await self._in_thread(self._store.repair)
            if repair is None:
                return await self._in_thread(self._store.current)
            self._metrics.store_repairs.inc()
            now = f"generation {repair.generation.generation}" if repair.generation else "none, for lack of a whole one"
            logger.error("%s; set it aside as %s; in force now: %s", error, repair.set_aside, now)
            return repair.generation

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread. The thread goes on if its task is cancelled; `end` waits for it."""
        work = asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))
        self._threads.add(work)
        work.add_done_callback(self._threads.discard)
        return await asyncio.shield(work)

    async def _pass(self) -> PassResult:
        for name, began_at in self.law_began_at.items():
            self._window.targets[name].forget_replaced(began_at)
        self._metrics.start_pass()
        data = {name: await target.data() for name, target in self._window.targets.items()}
        self._metrics.record_prefixes(await asyncio.to_thread(summarise, data["ttft"].train))
        try:
            return await self._in_thread(
                run_pass, data, self._served_onnx, self.law_began_at, self._store, self._settings, self._learn
            )
        except Exception as error:  # an unexpected error of a library fails this pass, not the trainer
            logger.exception("a training pass failed")
            return PassResult("failed", f"{type(error).__name__}: {error}", failed_at="pass")

    async def _record(self, result: PassResult) -> None:
        before = self.last_pass
        if before is None or (before.outcome, before.reason) != (result.outcome, result.reason):
            level = logging.ERROR if result.outcome == "failed" else logging.INFO
            number = f" generation {result.generation.generation}" if result.generation else ""
            logger.log(level, "pass: %s%s %s", result.outcome, number, result.reason)
        self.last_pass = result
        self.history.add(result)
        self._leads = result.outcome != "standby"
        self._record_law_changes(result)
        self._metrics.record_pass(result)
        if result.generation is not None:
            with suppress(StoreError):
                await self._tell_replacement(result.generation)
            self._warn_if_slow(result.seconds.get("publish", 0.0))
            await self._serve({name: learnt.onnx for name, learnt in result.published.items()})
            self.published |= result.published
            self._follow(result.generation)
            arrivals = {name: target.arrivals for name, target in self._window.targets.items()}
            self._canary.follow(result.published, arrivals)
        if result.reason and result.outcome not in _NOT_REFUSALS:
            self.refused.append(result)

    async def _roll_back_worse(self) -> None:
        """Publish the predecessors of models that turn out to be worse on rows that arrived since."""
        worse, reasons = {}, {}
        for name in list(self._canary.predecessors):
            holdout = self._window.targets[name].holdout()
            reason = await self._in_thread(self._canary.judge, name, holdout, self.law_began_at.get(name, 0))
            if reason:
                worse[name], reasons[name] = self._canary.predecessors[name].model, reason
        if not worse:
            return
        try:
            generation = await self._in_thread(
                publish, self._store, list(worse.values()), self._settings.keep_generations
            )
        except StoreError as error:
            self._metrics.failures.labels("publish").inc()
            logger.error("can't roll back: %s", error)
            return
        await self._serve({name: model.onnx for name, model in worse.items()})
        self.published |= worse
        self._follow(generation)
        self._canary.put_back(worse)
        for name, reason in reasons.items():
            logger.error("%s: put the model before in force again: %s", name, reason)
            self._metrics.rollbacks.labels(name).inc()

    def _warn_if_slow(self, publication_s: float) -> None:
        is_slow = publication_s > _SLOW_PUBLICATION_S
        if is_slow and not self._is_slow:
            logger.warning("the model store is slow: the last publication took %.1f s", publication_s)
        self._is_slow = is_slow

    def _record_law_changes(self, result: PassResult) -> None:
        for name, learnt in result.fitted.items():
            began_at = learnt.law_began_at
            if began_at is None or began_at == self.law_began_at.get(name):
                continue
            self.law_began_at[name] = began_at
            self._metrics.law_changes.labels(name).inc()
            logger.warning(
                "%s: the newest %d rows take %.2f times as long as the served model predicts; older rows weigh less",
                name,
                self._window.targets[name].arrivals - began_at,
                learnt.law_factor,
            )

    async def _serve(self, graphs: dict[str, bytes]) -> None:
        loaded = {name: await self._in_thread(Graph, onnx) for name, onnx in graphs.items()}
        self._served_onnx = self._served_onnx | graphs
        self.served |= loaded
