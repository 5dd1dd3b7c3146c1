"""The page of the documentation that compares policies in virtual time and through Envoy."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lab.clocks.comparing import Order, PhaseComparison, Side
from lab.clocks.predicting import Prediction
from lab.loop.report import count_names
from lab.markdown import table

_HEAD = (
    "policy",
    "SLO met, %: virtual",
    "range of runs",
    "Envoy",
    "difference",
    "Envoy's placements in virtual time",
    "TTFT p50 / p95, ms: virtual",
    "Envoy",
    "TPOT p50 / p95, ms: virtual",
    "Envoy",
)


def comparison_table(phases: Mapping[str, PhaseComparison]) -> str:
    """Return the table of policies with their figures on both clocks."""
    return table(_HEAD, [_row(name, phase) for name, phase in phases.items()])


def token_delay_table(phases: Mapping[str, PhaseComparison]) -> str:
    """Return the table of latency differences when each request goes to the same endpoint on both clocks."""
    head = ("phase", "TTFT later, ms", "TTFT difference, %", "TPOT later, ms", "TPOT difference, %")
    rows = [
        (name, *(f"{value:.2f}" for value in (a.ttft_ms, a.ttft_percent, a.tpot_ms, a.tpot_percent)))
        for name, a in ((name, phase.apart) for name, phase in phases.items())
    ]
    return table(head, rows)


def placement_table(phases: Mapping[str, PhaseComparison], hardware: Sequence[str]) -> str:
    """Return the table of each hardware's share of the requests on both clocks."""
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
    """Return the table of prediction quality on both clocks, of the policies that ask for predictions."""
    head = (
        "policy",
        "clock",
        "decided from predictions, %",
        "TTFT median error, %",
        "TPOT median error, %",
        "TTFT coverage, %",
        "TPOT coverage, %",
    )
    rows = [
        (name, clock, *("-" if value is None else f"{value:.1f}" for value in msgspec.structs.astuple(found)))
        for name, phase in phases.items()
        for clock, found in _predicting(phase)
    ]
    return table(head, rows)


def verdict(found: Order) -> str:
    """Return sentences that say whether the policies have the same order on both clocks."""
    correlation = "-" if found.rank_correlation is None else f"{found.rank_correlation:.2f}"
    text = (
        f"Rank correlation of SLO attainment (Spearman): {correlation}. {found.pairs} pairs of policies differ by more "
        f"than {found.margin * 100:g} points in virtual time; "
    )
    if not found.reversed_pairs:
        return text + "all of them are in the same order through Envoy."
    names = ", ".join(f"{worse} above {better}" for worse, better in found.reversed_pairs)
    return text + f"{len(found.reversed_pairs)} of them are in the opposite order through Envoy: {names}."


def page(
    phases: Mapping[str, PhaseComparison],
    low: Mapping[str, PhaseComparison],
    found: Order,
    settings: Mapping[str, Any],
    about: Any,
) -> str:
    """Return the whole page as Markdown."""
    pool, machine = count_names(settings["hardware"]), about["machine"]
    return f"""\
# The same policies in virtual time and through Envoy

This page shows whether policies are as good through a real Envoy as in the evaluation's virtual time. It was written by
`{settings["command"]}`, on {machine["cores"]} cores of {machine["cpu"] or "an unnamed CPU"}.

The evaluation judges policies in virtual time. Here the same requests also go through a real Envoy, with the real
picker, trainer and predictors. The servers run the evaluation's simulated engine in real time.

| setting | value |
| --- | --- |
| workload | {settings["workload"]} |
| prompts, cut to tokens | {settings["max_prompt_tokens"]:,} |
| answers, cut to tokens | {settings["max_output_tokens"]} |
| requests per second | {settings["requests_per_s"]:.3g} |
| seconds per policy | {settings["phase_s"]:g}, of which the first {settings["warm_up_share"]:.0%} aren't judged |
| seed | {settings["seed"]} |
| endpoints | {pool} |
| speed factor | {settings["speed_factor"]:g} |

- Time passes at the speed factor on both clocks, because one machine has to send every token. Objectives are scaled
  like steps. All times on this page are in wall-clock time.
- Round-robin, random, p2c and least-requests are Envoy's own load-balancing policies. The others are configurations of
  the picker.
- Models learn from a warm-up under `default` that is as long as a phase. They keep learning from phase to phase.

{comparison_table(phases)}

{verdict(found)} {sum(phase.errors for phase in phases.values())} requests failed.

- *virtual* pools {settings["chances"]} runs of the same requests, each with another seed for the policies' random
  choices. *range of runs* is the range of these runs' attainments.
- *Envoy's placements in virtual time* replays the requests in virtual time, on the endpoints that Envoy chose and at
  the times at which they were sent. It differs from *Envoy* by the time that steps and the path to the engine take on a
  real machine. It differs from *virtual* by decisions. These differ by random choices, and because latencies were
  observed and models were trained at other moments.

## Placements

Each hardware's share of the judged requests:

{placement_table(phases, settings["hardware"])}

## Predictions

These policies ask for predictions. Errors are absolute errors of the predicted median. Coverage is the share of
latencies at or below the predicted upper quantile; it should be {max(settings["quantiles"]):.0%}.

{prediction_table(phases)}

## Latencies with the same placements

These are medians over the judged requests. `low load` is {settings["low_share"]:.0%} of the rate, under `default`.

{token_delay_table({**low, **phases})}

- *later* is the time that the path through Envoy, picker and servers adds.
- *difference* is the absolute difference, in percent of the latency in virtual time.
"""


def _predicting(phase: PhaseComparison) -> list[tuple[str, Prediction]]:
    """Return the prediction quality on both clocks, or nothing if neither clock used predictions."""
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
