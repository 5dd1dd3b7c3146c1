"""The comparison of both clocks as a page of the documentation."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lab.clocks.comparing import Order, PhaseComparison, Side
from lab.clocks.predicting import Prediction
from lab.evaluation.report.tables import table
from lab.loop.report import count_names

_HEAD = (
    "policy",
    "SLO met, %: virtual",
    "by chance",
    "Envoy",
    "difference",
    "Envoy's placements in virtual time",
    "TTFT p50 / p95, ms: virtual",
    "Envoy",
    "TPOT p50 / p95, ms: virtual",
    "Envoy",
)


def comparison_table(phases: Mapping[str, PhaseComparison]) -> str:
    """A policy a row, both clocks side by side."""
    return table(_HEAD, [_row(name, phase) for name, phase in phases.items()])


def apart_table(phases: Mapping[str, PhaseComparison]) -> str:
    """How far latencies are apart when each request goes to the same endpoint on both clocks."""
    head = ("phase", "TTFT later by, ms", "TTFT apart by, %", "TPOT later by, ms", "TPOT apart by, %")
    rows = [
        (name, *(f"{value:.2f}" for value in (a.ttft_ms, a.ttft_percent, a.tpot_ms, a.tpot_percent)))
        for name, a in ((name, phase.apart) for name, phase in phases.items())
    ]
    return table(head, rows)


def placement_table(phases: Mapping[str, PhaseComparison], hardware: Sequence[str]) -> str:
    """Which share of the requests each kind of hardware gets on both clocks."""
    kinds = list(dict.fromkeys(hardware))
    head = ("policy", *(f"{kind}, %: virtual" if side == 0 else "Envoy" for kind in kinds for side in range(2)))
    rows = [
        (
            name,
            *(
                f"{100 * sum(share for share, of in zip(side.shares, hardware, strict=True) if of == kind):.0f}"
                for kind in kinds
                for side in (phase.virtual, phase.envoy)
            ),
        )
        for name, phase in phases.items()
    ]
    return table(head, rows)


def prediction_table(phases: Mapping[str, PhaseComparison]) -> str:
    """How the policies that ask for predictions were answered on both clocks."""
    head = (
        "policy",
        "clock",
        "decided from predictions, %",
        "median error of TTFT, %",
        "of TPOT, %",
        "within the upper TTFT, %",
        "TPOT, %",
    )
    rows = [
        (name, clock, *("-" if value is None else f"{value:.1f}" for value in msgspec.structs.astuple(found)))
        for name, phase in phases.items()
        for clock, found in _predicting(phase)
    ]
    return table(head, rows)


def verdict(found: Order) -> str:
    """Whether the order is the same, in a sentence or two."""
    correlation = "-" if found.rank_correlation is None else f"{found.rank_correlation:.2f}"
    text = (
        f"Rank correlation of SLO attainment (Spearman): {correlation}. {found.pairs} pairs of policies differ by more "
        f"than {found.margin * 100:g} points in virtual time; "
    )
    if not found.reversed_pairs:
        return text + "all of them are in the same order through Envoy."
    names = ", ".join(f"{worse} above {better}" for worse, better in found.reversed_pairs)
    return text + f"{len(found.reversed_pairs)} of them are the other way round through Envoy: {names}."


def page(
    phases: Mapping[str, PhaseComparison],
    low: Mapping[str, PhaseComparison],
    found: Order,
    settings: Mapping[str, Any],
    about: Any,
) -> str:
    """Markdown, whole."""
    pool, machine = count_names(settings["hardware"]), about["machine"]
    return f"""\
# The same policies on both clocks

Written by `{settings["command"]}`, on {machine["cores"]} cores of {machine["cpu"] or "an unnamed CPU"}.

The evaluation judges policies in virtual time. Here the same requests go through a real Envoy, the real picker, trainer
and predictors, to servers that run the same engine by the clock on the wall: workload {settings["workload"]}, with
prompts cut to {settings["max_prompt_tokens"]:,} tokens and answers to {settings["max_output_tokens"]}, at
{settings["requests_per_s"]:.3g} requests/s for {settings["phase_s"]:g} s a policy (the first
{settings["warm_up_share"]:.0%} aren't judged), seed {settings["seed"]}, on {pool}.

- On both clocks time passes at {settings["speed_factor"]:g} times its speed, as this machine has to send every token.
  All times here are those of the clock on the wall, and objectives are stretched as steps are.
- Round-robin, random, p2c and least-requests are Envoy's own load balancing, the others configurations of the picker.
- Models learn from a warm-up of the same length under `default`, and go on learning from phase to phase.

{comparison_table(phases)}

{verdict(found)} {sum(phase.errors for phase in phases.values())} requests failed.

- *virtual* is of {settings["chances"]} runs over the same requests, in which what policies leave to chance falls
  otherwise; *by chance* is the range of these.
- *Envoy's placements in virtual time* replays the same requests where Envoy sent them, at the times they were sent. It
  differs from Envoy by how steps, and the path to them, take their time on a real machine; and from *virtual* by
  decisions: by chance, by latencies that were observed and models that were learnt at other moments.

## Placements and predictions

The share of the judged requests that each kind of hardware was given:

{placement_table(phases, settings["hardware"])}

Of the policies that ask for predictions, how many decisions were made from them, and how far they were from what came
of it: errors are of the predicted median, and of latencies {max(settings["quantiles"]):.0%} should be within the
predicted upper quantile.

{prediction_table(phases)}

## Latencies of the same placements

Medians over the judged requests; `low load` is {settings["low_share"]:.0%} of the rate, under `default`.

{apart_table({**low, **phases})}

`later` is what the path through Envoy, picker and servers adds; `apart` is the size of the difference.
"""


def _predicting(phase: PhaseComparison) -> list[tuple[str, Prediction]]:
    """Both clocks, or neither where neither has predicted anything."""
    sides = [("virtual", phase.virtual.prediction), ("Envoy", phase.envoy.prediction)]
    known = [(clock, found) for clock, found in sides if found]
    return known if any(found.share for _, found in known) else []


def _row(name: str, phase: PhaseComparison) -> Sequence[str]:
    virtual, envoy = phase.virtual, phase.envoy
    return (
        name,
        f"{virtual.attainment:.1%}".rstrip("%"),
        f"{100 * phase.chance[0]:.1f} to {100 * phase.chance[1]:.1f}",
        f"{envoy.attainment:.1%}".rstrip("%"),
        f"{100 * (envoy.attainment - virtual.attainment):+.1f}",
        f"{phase.replayed.attainment:.1%}".rstrip("%"),
        *(_latencies(side, name) for name in ("ttft_ms", "tpot_ms") for side in (virtual, envoy)),
    )


def _latencies(side: Side, name: str) -> str:
    return " / ".join(f"{value:.0f}" for value in getattr(side, name).values())
