"""Figures of many ended requests: attainment, errors of predictions, and what prediction would have gained."""

import math
from collections.abc import Sequence
from itertools import groupby

import msgspec
import numpy as np

from epp.request.outcome_journal import Row
from headroom.report.gain import Gain, gain_of
from headroom.report.intervals import Estimate, Floats, estimate


class Errors(msgspec.Struct, frozen=True):
    """How good the predictions of one latency were, over `requests` requests. Both figures are in percent.

    `median_error`: half of the predicted medians were less wrong. `within`: the share of answers that were not slower
    than the predicted upper quantile.
    """

    requests: int
    median_error: float
    within: float


class Interval(msgspec.Struct, frozen=True):
    """A stretch of time that begins at `began_at`, Unix time: its requests, and the share that met its objectives."""

    began_at: float
    requests: int
    attainment: float | None


class Summary(msgspec.Struct, frozen=True):
    """`attainment`: the share of the `judged` requests that met their objectives. `errors` are by latency."""

    requests: int
    failed: int
    predicted: int
    judged: int
    attainment: Estimate | None
    by_profile: dict[str, Estimate]
    errors: dict[str, Errors]
    over_time: list[Interval]
    gain: Gain | None


def summarize(rows: Sequence[Row], interval_s: float) -> Summary:
    """Return the figures of rows in order of time. `over_time` has an entry for each `interval_s` with requests."""
    met = [row.is_met for row in rows]
    judged = [(row, one) for row, one in zip(rows, met, strict=True) if one is not None]
    profiles = sorted({row.profile for row, _ in judged})
    return Summary(
        requests=len(rows),
        failed=sum(row.status is None or row.status >= 400 for row in rows),
        predicted=sum(row.predicted_ttft_ms is not None for row in rows),
        judged=len(judged),
        attainment=_share([one for _, one in judged]) if judged else None,
        by_profile={name: _share([one for row, one in judged if row.profile == name]) for name in profiles},
        errors={name: found for name in ("ttft", "tpot") if (found := _errors(rows, name))},
        over_time=_over_time(rows, interval_s),
        gain=gain_of(rows),
    )


def _share(met: Sequence[bool]) -> Estimate:
    return estimate(np.array(met, dtype=np.float64))


def _errors(rows: Sequence[Row], name: str) -> Errors | None:
    observed, told, medians = (
        _column(rows, field) for field in (f"{name}_ms", f"predicted_{name}_ms", f"predicted_{name}_median_ms")
    )
    known = (observed > 0) & np.isfinite(told)
    if not known.any():
        return None
    observed, told, medians = observed[known], told[known], medians[known]
    middle = np.where(np.isfinite(medians), medians, told)
    error = float(np.median(np.abs(middle - observed) / observed))
    return Errors(int(known.sum()), 100 * error, 100 * float((observed <= told).mean()))


def _column(rows: Sequence[Row], field: str) -> Floats:
    return np.array([math.nan if (found := getattr(row, field)) is None else found for row in rows])


def _over_time(rows: Sequence[Row], interval_s: float) -> list[Interval]:
    found = []
    for number, group in groupby(rows, key=lambda row: math.floor(row.decided_at / interval_s)):
        of_time = list(group)
        met = [one for row in of_time if (one := row.is_met) is not None]
        found.append(Interval(number * interval_s, len(of_time), sum(met) / len(met) if met else None))
    return found
