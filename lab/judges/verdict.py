"""Compare a judge's goodput with this project's on the same run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.judges.task import Judgement, Task

# A judge's clock may start before its first request: connections and progress bars come first.
_CLOCKS_S = 1.0
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's goodput beside ours, from the judge's own notes of each request, and beside the picker's.

    Goodput is in requests/s over the judge's duration. `faults` says why the judge doesn't agree; empty if it does.
    """

    judge: str
    requests: int
    good: int
    goodput_rps: float
    our_good: int
    our_goodput_rps: float
    picker_good: int
    faults: Sequence[str]


def verdict(name: str, judged: Judgement, task: Task, decisions: Sequence[Mapping[str, Any]]) -> Verdict:
    """Compare the judge's figures with ours. `decisions` are the picker's own notes of the judge's requests."""
    outcomes = [one.outcome(n, task.ttft_ms, task.tpot_ms) for n, one in enumerate(judged.requests)]
    good = sum(outcome.met for outcome in outcomes)
    goodput = good / judged.duration_s
    span = max(one.end_s for one in judged.requests) - min(one.sent_s for one in judged.requests)
    told = [one for one in decisions if _has_objectives(one, task)]
    faults = [
        text
        for text, wrong in {
            f"it counts {judged.total} requests, and notes {len(outcomes)}": judged.total != len(outcomes),
            f"it calls {judged.good} requests good, and we {good}": judged.good != good,
            f"its goodput is {judged.goodput_rps:.4f} requests/s, and ours {goodput:.4f}": not math.isclose(
                judged.goodput_rps, goodput, rel_tol=_ROUNDING
            ),
            f"its clock ran for {judged.duration_s:.2f} s, and its requests took {span:.2f} s": abs(
                judged.duration_s - span
            )
            > _CLOCKS_S,
            f"objectives reached the picker with {len(told)} of {len(outcomes)} requests": len(told) < len(outcomes),
            f"{sum(one.error is not None for one in outcomes)} requests failed: {_first_error(judged)}": any(
                one.error for one in outcomes
            ),
        }.items()
        if wrong
    ]
    seen = sum(_met(one, task) for one in told)
    return Verdict(name, len(outcomes), judged.good, judged.goodput_rps, good, goodput, seen, faults)


def figures(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Return the figures of the JSON document."""
    found: dict[str, float] = {"judges_passed": sum(not one.faults for one in verdicts)}
    for one in verdicts:
        name = one.judge.replace("-", "_")
        found[f"{name}_goodput_rps"] = one.goodput_rps
        found[f"{name}_our_goodput_rps"] = one.our_goodput_rps
        found[f"{name}_attainment"] = one.good / one.requests
        found[f"{name}_our_attainment"] = one.our_good / one.requests
        found[f"{name}_picker_attainment"] = one.picker_good / one.requests
    return found


def _has_objectives(decision: Mapping[str, Any], task: Task) -> bool:
    return (decision["slo_ttft_ms"], decision["slo_tpot_ms"]) == (task.ttft_ms, task.tpot_ms)


def _met(decision: Mapping[str, Any], task: Task) -> bool:
    """Return whether the request met its objectives as the picker saw the answer."""
    seen = decision["outcome"]
    return (
        seen["status"] == 200
        and seen["ttft_ms"] is not None
        and seen["ttft_ms"] <= task.ttft_ms
        and (seen["tpot_ms"] or 0.0) <= task.tpot_ms
    )


def _first_error(judged: Judgement) -> str:
    return next((one.error[:200] for one in judged.requests if one.error), "none")
