"""Prediction quality: our models, the reference's models and the noise floor, on the same rows.

Models are fitted to the first rows and judged on the later ones, as in operation. Errors are those of the median.
Pinball losses and coverage are those of the upper quantile. Losses are of the logarithm, so that one long latency
doesn't outweigh a hundred short ones.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from lab.evaluation.studies.contenders import CONTENDERS, OURS, Contender
from lab.evaluation.studies.experiment_model import ExperimentPlan, TargetPlan, fit_target, target_matrix
from lab.evaluation.studies.noise_floor import Floor, floor_of_neighbours
from trainer.settings import FitSettings
from trainer.wire import Matrix

_FEWEST_ROWS = 200


class Quality(msgspec.Struct, frozen=True):
    """The quality of one kind of model.

    `mdape` is the error of the median. `upper_mdape` is the error of the upper quantile, which the reference answers
    with. `bias` is the median of log(observed / predicted median).
    """

    model: str
    mdape: float
    upper_mdape: float
    pinball: float
    coverage: float
    bias: float


class TargetQuality(msgspec.Struct, frozen=True):
    """The quality of all models of one latency. `floor` is None with too few rows."""

    target: str
    quantile: float
    fitted_rows: int
    judged_rows: int
    models: tuple[Quality, ...]
    floor: Floor | None


def judge(
    target: str,
    rows: Matrix,
    y_ms: Matrix,
    *,
    quantile: float = 0.9,
    fitted_share: float = 0.7,
    contenders: Mapping[str, Contender] = CONTENDERS,
    plan: ExperimentPlan = OURS,
    floor: Floor | None = None,
) -> TargetQuality:
    """Judge all contenders on `rows` [rows, plan.names] in order of arrival, with latencies `y_ms` above 0.

    `plan` names the columns, and those that the floor uses. A better known floor can be given instead. Raise ValueError
    with fewer than 200 rows.
    """
    if len(rows) != len(y_ms) or len(rows) < _FEWEST_ROWS:
        raise ValueError(f"{target}: {len(rows)} rows and {len(y_ms)} latencies; expected at least {_FEWEST_ROWS} each")
    if not (y_ms > 0).all():
        raise ValueError(f"{target}: a latency is not above 0")
    cut = round(len(rows) * fitted_share)
    found = []
    for name, contend in contenders.items():
        median, upper = contend(target, rows[:cut], y_ms[:cut], quantile)(rows[cut:])
        found.append(_quality(name, median, upper, y_ms[cut:], quantile))
    return TargetQuality(
        target=target,
        quantile=quantile,
        fitted_rows=cut,
        judged_rows=len(rows) - cut,
        models=tuple(found),
        floor=floor or _floor(target, plan, rows, y_ms, cut, quantile),
    )


def table(found: Sequence[TargetQuality]) -> str:
    """Return a table as plain text."""
    head = f"{'':34}{'MdAPE':>8}{'of upper':>10}{'pinball':>9}{'coverage':>10}{'bias':>8}"
    lines = []
    for one in found:
        lines.append(
            f"{one.target.upper()}: fitted to {one.fitted_rows:,} rows, judged on the next {one.judged_rows:,}, "
            f"upper quantile {one.quantile:g}, losses of the logarithm"
        )
        lines.append(head)
        lines += [
            f"{q.model:34}{q.mdape:8.1%}{q.upper_mdape:10.1%}{q.pinball:9.4f}{q.coverage:10.1%}{q.bias:+8.3f}"
            for q in one.models
        ]
        if one.floor:
            name = f"noise floor ({one.floor.method})"
            lines.append(f"{name:34}{one.floor.mdape:8.1%}{'':10}{one.floor.pinball:9.4f}{one.quantile:10.1%}")
        lines.append("")
    return "\n".join(lines)


def _quality(name: str, median_ms: Matrix, upper_ms: Matrix, y_ms: Matrix, quantile: float) -> Quality:
    off = np.log(y_ms.astype(np.float64)) - np.log(upper_ms.astype(np.float64))
    return Quality(
        model=name,
        mdape=float(np.median(np.abs(median_ms / y_ms - 1))),
        upper_mdape=float(np.median(np.abs(upper_ms / y_ms - 1))),
        pinball=float(np.maximum(quantile * off, (quantile - 1) * off).mean()),
        coverage=float((off <= 0).mean()),
        bias=float(np.median(np.log(y_ms / median_ms))),
    )


def _floor(target: str, plan: ExperimentPlan, rows: Matrix, y_ms: Matrix, cut: int, quantile: float) -> Floor | None:
    """Estimate the floor by neighbours among the judged rows, with residuals of a mean fitted to the other rows."""
    mean = TargetPlan(plan.target(target).columns, fit=FitSettings(quantiles=(), trees=150, depth=6, learning_rate=0.1))
    x = target_matrix(plan, target, rows)
    fitted = fit_target(mean, x[:cut], y_ms[:cut])
    gains = fitted.models[0].importances(mean.columns)
    weights = np.array([gains[column] for column in mean.columns], dtype=np.float32)
    residuals = np.log(y_ms[cut:]) - fitted.predict(x[cut:])[0]
    return floor_of_neighbours(x[cut:], residuals, weights / max(float(weights.sum()), 1e-9), quantile)
