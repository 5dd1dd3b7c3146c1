"""The targets of our policy, and verdicts on them."""

from dataclasses import dataclass

from lab.evaluation.plan import BASE, OURS, SHEDDING
from lab.evaluation.report.recovery import COVERAGE, TPOT_MDAPE, TTFT_MDAPE
from lab.evaluation.report.statistics import Interval
from lab.evaluation.report.summary import OVER_LLMD, SHEDDING_PREFIX, Summary, opponents

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
        """Return the verdict: `unsure` if the interval lies partly in the range. More seeds would narrow it."""
        if found is None:
            return "not measured"
        low, high = found.ends
        if self.least <= low and high <= self.most:
            return "met"
        return "missed" if high < self.least or low > self.most else "unsure"


def _goodputs(ours: str, prefix: str = "") -> list[FigureTarget]:
    over = "goodput at 90% of {}, relative to that of {}, {}".format
    return [
        *(
            FigureTarget(prefix + name, over(ours, opponents(ours)[name], "median over workloads"), least)
            for name, least in _LEAST_OVER.items()
        ),
        FigureTarget(f"{prefix}worst_goodput_over_default", over(ours, BASE, "on the worst workload"), 1.0),
    ]


TARGETS = (
    *_goodputs(OURS),
    *(
        FigureTarget(name, f"goodput at 90% of {OURS}, relative to that of {policy}, median over workloads", 1.0)
        for name, policy in OVER_LLMD.items()
    ),
    *_goodputs(SHEDDING, SHEDDING_PREFIX),
    FigureTarget(
        "e2e_p50_gain_over_tuned_shared_prefix",
        f"end-to-end p50 of tuned, relative to that of {OURS}, shared-prefix, common load",
        1.5,
    ),
    FigureTarget("ttft_mdape", "median error of predicted TTFT, %, median over workloads", most=TTFT_MDAPE),
    FigureTarget("tpot_mdape", "median error of predicted TPOT, %, median over workloads", most=TPOT_MDAPE),
    FigureTarget("coverage_q90", "coverage of the predicted 0.9-quantile, %, median over workloads", *COVERAGE),
    FigureTarget("recovery_s", "time until errors recover after an endpoint drops to half speed, s", most=60.0),
    FigureTarget("recovery_coverage_q90", "coverage after recovery, %", *COVERAGE),
)


def verdicts(summary: Summary) -> list[tuple[FigureTarget, str, str]]:
    """Return each target, the figure as text, and the verdict."""
    found = [summary.figures.get(target.name) for target in TARGETS]
    return [(target, _text(one), target.verdict(one)) for target, one in zip(TARGETS, found, strict=True)]


def _text(found: Interval | None) -> str:
    if found is None:
        return "-"
    return found.text() + (" (one seed, no interval)" if found.seeds == 1 else "")
