"""What is wanted of our policy, and whether it was found."""

from dataclasses import dataclass

from lab.evaluation.plan import BASE, OURS, SHEDDING
from lab.evaluation.report.recovery import COVERAGE, TPOT_MDAPE, TTFT_MDAPE
from lab.evaluation.report.statistics import Interval
from lab.evaluation.report.summary import OF_SHEDDING, Summary, opponents

_LEAST_OVER = {
    "goodput_over_round_robin": 1.5,
    "goodput_over_default": 1.25,
    "goodput_over_tuned": 1.15,
    "goodput_over_closed_formula": 1.15,
    "goodput_over_reference": 1.10,
    "goodput_of_oracle": 0.92,
}


@dataclass(frozen=True)
class FigureTarget:
    """A figure and the range that it should lie in."""

    name: str
    what: str
    least: float = float("-inf")
    most: float = float("inf")

    @property
    def wanted(self) -> str:
        if self.most == float("inf"):
            return f"≥ {self.least:g}"
        return f"≤ {self.most:g}" if self.least == float("-inf") else f"{self.least:g} to {self.most:g}"

    def verdict(self, found: Interval | None) -> str:
        """`unsure` where a part of the interval lies in the range and a part outside: more seeds would tell."""
        if found is None:
            return "not measured"
        low, high = found.ends
        if self.least <= low and high <= self.most:
            return "met"
        return "missed" if high < self.least or low > self.most else "unsure"


def _goodputs(ours: str, prefix: str = "") -> list[FigureTarget]:
    over = "goodput of {} at 90% over that of {}, {}".format
    return [
        *(
            FigureTarget(prefix + name, over(ours, opponents(ours)[name], "median over workloads"), least)
            for name, least in _LEAST_OVER.items()
        ),
        FigureTarget(f"{prefix}worst_goodput_over_default", over(ours, BASE, "on the worst workload"), 1.0),
    ]


TARGETS = (
    *_goodputs(OURS),
    *_goodputs(SHEDDING, OF_SHEDDING),
    FigureTarget(
        "e2e_p50_gain_over_tuned_shared_prefix", "end-to-end p50 of tuned over ours, shared-prefix, same load", 1.5
    ),
    FigureTarget("ttft_mdape", "median error of predicted TTFT, %, median over workloads", most=TTFT_MDAPE),
    FigureTarget("tpot_mdape", "median error of predicted TPOT, %, median over workloads", most=TPOT_MDAPE),
    FigureTarget("coverage_q90", "observed below the predicted 0.9-quantile, %, median over workloads", *COVERAGE),
    FigureTarget("recovery_s", "until errors are back after an endpoint halved its speed, s", most=60.0),
    FigureTarget("recovery_coverage_q90", "coverage from then on, %", *COVERAGE),
)


def verdicts(summary: Summary) -> list[tuple[FigureTarget, str, str]]:
    """Each target, what was found as it is printed, and the verdict."""
    found = [summary.figures.get(target.name) for target in TARGETS]
    return [(target, _text(one), target.verdict(one)) for target, one in zip(TARGETS, found, strict=True)]


def _text(found: Interval | None) -> str:
    if found is None:
        return "-"
    return found.text() + (" (one seed, no interval)" if found.seeds == 1 else "")
