"""Tables of the starts, as Markdown and as figures."""

from collections.abc import Sequence

from lab.cold_start.starts import ENDS, STARTS, StartResult
from lab.evaluation.report.statistics import mean_interval
from lab.markdown import table

_RANGES = [f"to {end:,}" for end in ENDS]


def page(workload: str, results: Sequence[StartResult]) -> str:
    """Return the tables of one workload and one pool."""
    by_start = {start: [one for one in results if one.start == start] for start in STARTS}
    shown = {start: found for start, found in by_start.items() if found}
    seeds = len(next(iter(shown.values())))
    return "\n\n".join(
        (
            f"`{workload}`, {results[0].pool} pool, means over {seeds} seeds. Each column has the requests "
            "since the column before, by number.",
            "The first request that was predicted, and the median error of predicted TTFT and TPOT, in percent:",
            _errors(shown),
            "Share of the requests that met both objectives, less that of `default` with the same requests, in points:",
            _gains(shown),
        )
    )


def figures(workload: str, results: Sequence[StartResult]) -> dict[str, float]:
    """Return each number by its name: cold_start_FIGURE.WORKLOAD.POOL.START.REQUESTS."""
    found: dict[str, list[float]] = {}
    for one in results:
        start = one.start.replace(" ", "_")
        for place, end in enumerate(ENDS):
            gain = 100 * (one.attainment[place] - one.base_attainment[place])
            values = {"ttft_mdape": one.ttft_mdape[place], "tpot_mdape": one.tpot_mdape[place], "gain_points": gain}
            for name, value in values.items():
                if value is not None:
                    found.setdefault(f"cold_start_{name}.{workload}.{one.pool}.{start}.{end}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _errors(shown: dict[str, list[StartResult]]) -> str:
    rows = []
    for start, results in shown.items():
        firsts = [one.predicted_from for one in results if one.predicted_from is not None]
        first = f"{sum(firsts) / len(firsts):.0f}" if firsts else "-"
        for latency in ("ttft", "tpot"):
            by_seed = [getattr(one, f"{latency}_mdape") for one in results]
            cells = [_mean([values[place] for values in by_seed]) for place in range(len(ENDS))]
            rows.append((start, latency.upper(), first, *cells))
    return table(("start", "latency", "predicted from", *_RANGES), rows)


def _gains(shown: dict[str, list[StartResult]]) -> str:
    rows = [
        (
            start,
            *(
                mean_interval([100 * (one.attainment[place] - one.base_attainment[place]) for one in results]).text()
                for place in range(len(ENDS))
            ),
        )
        for start, results in shown.items()
    ]
    return table(("start", *_RANGES), rows)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}" if known else "-"
