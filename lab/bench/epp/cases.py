"""Running cases of load on several pickers in turn, so that whatever else the machine does weighs on all alike."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.gateway import Shape
from lab.bench.epp.load import LoadPlan, PickerMeasurement, load
from lab.bench.epp.pickers import Setting, own_picker, peer_picker
from lab.bench.epp.target import MeasuredPicker
from lab.bench.figures import steps


@dataclass(frozen=True)
class Case:
    """A kind of request, and how many at once or, where `per_s` is given, a second."""

    name: str
    shape: Shape
    at_once: int = 8
    per_s: float = 0.0
    connections: int = 1


@dataclass(frozen=True)
class Found:
    """Medians over the rounds."""

    cpu_us: float
    picked_p50_ms: float
    picked_p99_ms: float
    per_s: float
    client_cores: float


@contextmanager
def pickers(bench: Bench, setting: Setting, *, with_peer: bool = False) -> Iterator[dict[str, MeasuredPicker]]:
    """This project's picker and, if wanted and there is one, the peer."""
    with ExitStack() as stack:
        found = {"ours": stack.enter_context(own_picker(bench, setting))}
        if bench.peer and with_peer:
            theirs = bench.attempt("peer", stack.enter_context, peer_picker(bench, setting))
            if theirs:
                found["peer"] = theirs
        yield found


def run(
    bench: Bench, targets: Mapping[str, MeasuredPicker], cases: Sequence[Case], title: str
) -> dict[str, dict[str, Found]]:
    """What each target did in each case, `found[case][target]`; a case that a target fails once is left out for it."""
    time.sleep(bench.settle_s)
    idle = {name: target.idle_cores(bench.seconds) for name, target in targets.items()}
    loads: dict[tuple[str, str], list[PickerMeasurement]] = {}
    failed: set[tuple[str, str]] = set()
    for case, _ in steps([(case, n) for case in cases for n in range(bench.rounds)], title):
        for name, target in targets.items():
            if (case.name, name) in failed:
                continue
            plan = LoadPlan(target.address, case.shape, bench.seconds, case.at_once, case.per_s, case.connections)
            one = bench.attempt(f"{title}: {case.name} of {name}", load, target, plan)
            if one:
                loads.setdefault((case.name, name), []).append(one)
            else:
                # What other rounds found would flatter it.
                failed.add((case.name, name))
                loads.pop((case.name, name), None)
    found: dict[str, dict[str, Found]] = {}
    for (case_name, name), several in loads.items():
        found.setdefault(case_name, {})[name] = _medians(several, idle[name])
    return found


def _medians(loads: Sequence[PickerMeasurement], idle_cores: float) -> Found:
    each = [
        (one.cpu_us_per_request(idle_cores), one.picked_ms(50), one.picked_ms(99), one.per_s, one.client_cores)
        for one in loads
    ]
    return Found(*np.median(each, axis=0).tolist())


def named(found: Mapping[str, Found] | None, figure: str, attribute: str = "cpu_us") -> Figures:
    """The figure, the peer's as peer_FIGURE; none of what was not found."""
    prefixes = {"ours": "", "peer": "peer_"}
    return {prefixes[name] + figure: getattr(one, attribute) for name, one in (found or {}).items()}


def ratio(found: Mapping[str, Found] | None, figure: str, attribute: str = "cpu_us") -> Figures:
    """Ours over the peer's, where both were found."""
    if not found or not {"ours", "peer"} <= found.keys():
        return {}
    return {figure: getattr(found["ours"], attribute) / getattr(found["peer"], attribute)}
