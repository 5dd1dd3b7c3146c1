"""Load cases, run on several pickers in turn, so that other work on the machine affects all alike."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass

import numpy as np

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.gateway import Shape
from lab.bench.epp.load import LoadPlan, PickerMeasurement, load
from lab.bench.epp.pickers import Setting, own_picker, peer_picker
from lab.bench.epp.target import MeasuredPicker
from lab.bench.figures import steps


@dataclass(frozen=True)
class Case:
    """A kind of request, and its load: `at_once` concurrent requests, or `per_s` requests per second if it is set."""

    name: str
    shape: Shape
    at_once: int = 8
    per_s: float = 0.0
    connections: int = 1


@dataclass(frozen=True)
class CaseResult:
    """The result of one target in one case: of one round, or the medians over the rounds."""

    cpu_us: float
    picked_p50_ms: float
    picked_p99_ms: float
    per_s: float
    client_cores: float


@contextmanager
def pickers(bench: Bench, setting: Setting, *, with_peer: bool = False) -> Iterator[dict[str, MeasuredPicker]]:
    """Run this project's picker and, with `with_peer`, the peer if there is one. Yield them by name."""
    with ExitStack() as stack:
        found = {"ours": stack.enter_context(own_picker(bench, setting))}
        if bench.peer and with_peer:
            theirs = bench.attempt("peer", stack.enter_context, peer_picker(bench, setting))
            if theirs:
                found["peer"] = theirs
        yield found


def run(
    bench: Bench, targets: Mapping[str, MeasuredPicker], cases: Sequence[Case], title: str
) -> dict[str, dict[str, CaseResult]]:
    """Measure each target in each case. Return medians over the rounds as `found[case][target]`."""
    measured = each_round(bench, targets, cases, title)
    return {
        case: {name: _medians(several) for name, several in by_target.items()} for case, by_target in measured.items()
    }


def each_round(
    bench: Bench, targets: Mapping[str, MeasuredPicker], cases: Sequence[Case], title: str
) -> dict[str, dict[str, list[CaseResult]]]:
    """Measure the targets in turn, in each round of each case. Return the results as `found[case][target][round]`.

    If a target fails a case in one round, it has no results for this case.
    """
    time.sleep(bench.settle_s)
    idle = {name: target.idle_cores(bench.seconds) for name, target in targets.items()}
    found: dict[str, dict[str, list[CaseResult]]] = {case.name: {} for case in cases}
    failed: set[tuple[str, str]] = set()
    for case, _ in steps([(case, n) for case in cases for n in range(bench.rounds)], title):
        for name, target in targets.items():
            if (case.name, name) in failed:
                continue
            plan = LoadPlan(target.address, case.shape, bench.seconds, case.at_once, case.per_s, case.connections)
            one = bench.attempt(f"{title}: {case.name} of {name}", load, target, plan)
            if one:
                found[case.name].setdefault(name, []).append(_result(one, idle[name]))
            else:
                # The other rounds alone would look too good.
                failed.add((case.name, name))
                found[case.name].pop(name, None)
    return {case: by_target for case, by_target in found.items() if by_target}


def _result(one: PickerMeasurement, idle_cores: float) -> CaseResult:
    return CaseResult(
        one.cpu_us_per_request(idle_cores), one.picked_ms(50), one.picked_ms(99), one.per_s, one.client_cores
    )


def _medians(several: Sequence[CaseResult]) -> CaseResult:
    return CaseResult(*np.median([astuple(one) for one in several], axis=0).tolist())


def figures_by_picker(found: Mapping[str, CaseResult] | None, figure: str, attribute: str = "cpu_us") -> Figures:
    """Return `figure` for our picker and peer_`figure` for the peer, as far as they were measured."""
    prefixes = {"ours": "", "peer": "peer_"}
    return {prefixes[name] + figure: getattr(one, attribute) for name, one in (found or {}).items()}


def ratio(found: Mapping[str, CaseResult] | None, figure: str, attribute: str = "cpu_us") -> Figures:
    """Return the ratio of our figure to the peer's, if both were measured."""
    if not found or not {"ours", "peer"} <= found.keys():
        return {}
    return {figure: getattr(found["ours"], attribute) / getattr(found["peer"], attribute)}
