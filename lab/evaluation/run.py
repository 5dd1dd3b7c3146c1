"""The execution of a plan: prepare each workload, search each policy's goodput, and run all policies at common loads.

A pool of processes makes the runs. `default` is searched first. Its rates at 90% attainment, averaged over seeds, give
the workload's common load. The search of a policy's first seed begins at the rate found for `default`. The searches of
its other seeds begin at the rate found for its first seed. So results don't depend on the order in which runs end.
"""

import asyncio
import functools
import math
import multiprocessing
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import msgspec

from lab.evaluation.journal import Journal
from lab.evaluation.plan import BASE, COMMON_IF_NEVER, EvaluatedWorkload, EvaluationPlan
from lab.evaluation.progress import Meter
from lab.evaluation.replay.misses import LEAST_ATTAINMENT
from lab.evaluation.replay.point import FindTpotBounds, JudgeRows, PointOptions, PointResult, Prepare, RunPoint
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.report.statistics import geometric_interval
from lab.evaluation.search import SHARES, Goodput, Grid, Guess, search
from lab.evaluation.studies.noise_floor import TpotBounds
from lab.evaluation.studies.quality import TargetQuality

_WORKLOADS_AT_ONCE = 2  # with one, processes would idle during a workload's last runs
T = TypeVar("T")
R = TypeVar("R")
Search = tuple[str, int]  # policy and seed
Found = dict[float, Goodput]  # by share
Preparation = Callable[[], Awaitable[bytes | None]]  # prepares a workload when it is first called


@dataclass(frozen=True)
class RunFunctions:
    """The functions that make runs. Other processes call them, so they must be importable by name."""

    prepare: Prepare
    run_point: RunPoint
    judge_rows: JudgeRows
    tpot_bounds: FindTpotBounds


def evaluate(
    plan: EvaluationPlan, workloads: Mapping[str, EvaluatedWorkload], functions: RunFunctions, journal: Journal
) -> list[WorkloadResult]:
    """Return all results of the plan. Results in the journal are reused. An error in a run ends the evaluation."""
    searches = len(plan.workloads) * len(plan.policies) * len(plan.seeds)
    known = sum(len(journal.points_of(plan, workload)) for workload in plan.workloads)
    spawn = multiprocessing.get_context("spawn")  # the models' libraries have threads, which a fork would lose
    with (
        Meter(len(plan.workloads), searches, searches * len(plan.loads), known) as meter,
        ProcessPoolExecutor(plan.jobs, spawn, _leave_interrupts_to_the_parent) as pool,
    ):
        try:
            return asyncio.run(_all(_Evaluation(plan, functions, journal, meter, pool), workloads))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def _all(evaluation: "_Evaluation", workloads: Mapping[str, EvaluatedWorkload]) -> list[WorkloadResult]:
    turns = asyncio.Semaphore(_WORKLOADS_AT_ONCE)

    async def one(name: str) -> WorkloadResult:
        async with turns:
            return await evaluation.workload(name, workloads[name])

    return await asyncio.gather(*(one(name) for name in evaluation.plan.workloads))


@dataclass(frozen=True)
class _Evaluation:
    plan: EvaluationPlan
    functions: RunFunctions
    journal: Journal
    meter: Meter
    pool: ProcessPoolExecutor

    async def workload(self, name: str, described: EvaluatedWorkload) -> WorkloadResult:
        plan = self.plan
        prepared = functools.cache(lambda: asyncio.ensure_future(self._prepare(name)))
        grid = Grid(described.typical_rps, plan.rate_ratio, _stride(plan.rate_ratio), _reach(plan.rate_ratio))
        found = await self._search(name, grid, prepared, BASE, 0)
        attained = [found[BASE, seed][SHARES[0]] for seed in plan.seeds]
        common_rps = geometric_interval([one.rps for one in attained]).mean
        guess_rps = attained[0].rps
        if any(one.bound == "at most" for one in attained):
            guess_rps = common_rps = COMMON_IF_NEVER * described.typical_rps
        rates = {load: grid.rate(grid.level(load * common_rps)) for load in plan.loads}
        others = [policy for policy in plan.policies if policy != BASE]
        for more in await _each(
            others, lambda policy: self._search(name, grid, prepared, policy, grid.level(guess_rps))
        ):
            found |= more
        wanted = list(product(plan.policies, rates.values(), plan.seeds))
        await _each(wanted, lambda run: self._run(name, *run, prepared))
        goodputs = {
            (policy, share): [found[policy, seed][share] for seed in plan.seeds]
            for policy, share in product(plan.policies, SHARES)
        }
        points = self.journal.points_of(plan, name)
        quality = await self._judge_rows(name, prepared)
        bounds = await self._tpot_bounds(name, grid.rate(grid.level(common_rps)), prepared)
        self.meter.finished(name)
        return WorkloadResult(
            name, described.description, plan.seeds, plan.policies, grid, goodputs, rates, points, quality, bounds
        )

    async def _search(
        self, name: str, grid: Grid, prepared: Preparation, policy: str, level: int
    ) -> dict[Search, Found]:
        """Search the goodputs of all seeds of a policy. The first seed's search begins at `level`."""

        async def one(seed: int, guesses: Mapping[float, Guess]) -> Found:
            tried: list[float] = []

            async def attainment_at(rate: float) -> float:
                tried.append(rate)
                point = await self._run(name, policy, rate, seed, prepared, until_decided=True)
                # Cut or not, every attainment below this counts the same, so results don't depend on earlier runs.
                return max(point.attainment, LEAST_ATTAINMENT)

            found = await search(attainment_at, grid, guesses)
            self.meter.searched(len(tried))
            return found

        first, *others = self.plan.seeds
        found = await one(first, dict.fromkeys(SHARES, Guess(level, grid.stride)))
        near = {share: Guess(grid.level(goodput.rps), 1) for share, goodput in found.items()}
        more = await _each(others, lambda seed: one(seed, near))
        return {(policy, seed): each for seed, each in zip(self.plan.seeds, [found, *more], strict=True)}

    async def _run(
        self,
        workload: str,
        policy: str,
        rate: float,
        seed: int,
        prepared: Preparation,
        *,
        until_decided: bool = False,
    ) -> PointResult:
        """Return a run's result. `until_decided` allows a run that was cut when its outcome was decided."""
        point = self.journal.points.get((workload, policy, rate, seed))
        what = f"{workload}: {policy} at {rate:.4g} requests/s, seed {seed}"
        if point is None or (point.is_cut and not until_decided):
            seconds, options = self.plan.seconds_at(workload, rate), PointOptions(until_decided=until_decided)
            arguments = (workload, rate, seed, policy, seconds, await prepared(), options)
            point = await self._in_pool(what, self.functions.run_point, *arguments)
            self.journal.add(point)
            self.meter.ran(what)
        else:
            self.meter.reused()
        return point

    async def _prepare(self, workload: str) -> bytes | None:
        preparation = self.plan.preparation
        name = f"{workload}.{preparation}"
        prepared = self.journal.load(name)
        if prepared is None:
            prepared = await self._in_pool(f"preparing {workload}", self.functions.prepare, workload, preparation)
            if prepared is not None:
                self.journal.save(name, prepared)
        return prepared

    async def _judge_rows(self, workload: str, prepared: Preparation) -> tuple[TargetQuality, ...]:
        if workload not in self.plan.judged_rows:
            return ()
        what = f"judging rows of {workload}"
        data = await self._load_or_run(f"{workload}.quality", what, prepared, self.functions.judge_rows, workload)
        return msgspec.json.decode(data, type=tuple[TargetQuality, ...])

    async def _tpot_bounds(self, workload: str, rate: float, prepared: Preparation) -> TpotBounds | None:
        if not self.plan.has_bounds:
            return None
        what = f"bounds of TPOT, {workload}"
        data = await self._load_or_run(f"{workload}.bounds", what, prepared, self.functions.tpot_bounds, workload, rate)
        return msgspec.json.decode(data, type=TpotBounds)

    async def _load_or_run(
        self, name: str, what: str, prepared: Preparation, function: Callable[..., object], *arguments: object
    ) -> bytes:
        """Return a function's result as JSON. A resumed evaluation loads it and doesn't call the function again.

        The function is called with `arguments` and the prepared data.
        """
        data = self.journal.load(name)
        if data is None:
            data = msgspec.json.encode(await self._in_pool(what, function, *arguments, await prepared()))
            self.journal.save(name, data)
        return data

    async def _in_pool(self, what: str, function: Callable[..., T], *arguments: object) -> T:
        try:
            # Shielded, because a cancelled future breaks the pool's thread when processes are terminated.
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments))
        except Exception as error:
            error.add_note(what)
            raise


async def _each(values: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    return await asyncio.gather(*(work(value) for value in values))


def _stride(ratio: float) -> int:
    """Return the largest power of two whose number of levels make a factor below 1.4. Powers of two bisect evenly."""
    return next(stride for stride in (32, 16, 8, 4, 2) if ratio**stride < 1.4)


def _reach(ratio: float) -> int:
    """Return the levels that make a factor of about 9. A share that isn't attained at a ninth of the rate never is."""
    return round(math.log(9, ratio))
