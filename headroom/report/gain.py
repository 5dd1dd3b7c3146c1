"""What prediction would have gained for requests that were routed without it."""

from collections.abc import Sequence

import msgspec
import numpy as np

from epp.request.outcome_journal import Row
from epp.request.shadow import Shadow
from headroom.report.calibration import LEVELS, calibrate, levels_of
from headroom.report.intervals import Estimate, Floats, block_count, half_width


class Gain(msgspec.Struct, frozen=True):
    """What prediction would have done with `requests` requests that were routed without it.

    `another` and `shed` are shares of these. `as_was` and `by_prediction` are the shares expected to meet their
    objectives, `gain` is their difference. Expectations are calibrated by the `checked` requests whose answers were
    observed: predictions alone expected the share `expected` of these to meet their objectives, and `observed` did.
    """

    requests: int
    another: float
    shed: float
    as_was: Estimate
    by_prediction: Estimate
    gain: Estimate
    checked: int
    observed: float | None
    expected: float | None


def gain_of(rows: Sequence[Row]) -> Gain | None:
    """Return the gain for those of the rows that have a shadow; None if none has. The rows are in order of time."""
    shadows = [(row, row.shadow) for row in rows if row.shadow]
    if not shadows:
        return None
    choices = [shadow.choice(row.endpoint) for row, shadow in shadows]
    checked = [(shadow.chance_made, met) for row, shadow in shadows if (met := row.is_met) is not None]
    as_was, by_prediction, gain = _estimates(shadows)
    return Gain(
        requests=len(shadows),
        another=choices.count("another") / len(shadows),
        shed=choices.count("shed") / len(shadows),
        as_was=as_was,
        by_prediction=by_prediction,
        gain=gain,
        checked=len(checked),
        observed=sum(met for _, met in checked) / len(checked) if checked else None,
        expected=sum(chance for chance, _ in checked) / len(checked) if checked else None,
    )


def _estimates(shadows: Sequence[tuple[Row, Shadow]]) -> list[Estimate]:
    """Return the calibrated shares as it was and by prediction, and their difference.

    The calibration is as uncertain as the rest, so each block is left out once from both (a jackknife).
    """
    blocks = block_count(len(shadows))
    parts = np.array_split(np.arange(len(shadows)), blocks or 1)
    counts = np.stack([_counts([shadows[index] for index in part]) for part in parts])
    total = counts.sum(axis=0)
    whole = _shares(total)
    if not blocks:
        return [Estimate(float(value), None) for value in whole]
    without = np.stack([_shares(total - one) for one in counts])
    pseudo = blocks * whole - (blocks - 1) * without
    return [Estimate(float(whole[n]), half_width(pseudo[:, n].tolist())) for n in range(len(whole))]


def _counts(shadows: Sequence[tuple[Row, Shadow]]) -> Floats:
    """Count by level of chance: requests as they were, by prediction, with an observed answer, and met.

    A request that would have been refused has no level by prediction.
    """

    def count(chances: list[float]) -> Floats:
        found: Floats = np.bincount(levels_of(np.array(chances)), minlength=len(LEVELS)).astype(np.float64)
        return found

    judged = [(shadow.chance_made, row.is_met) for row, shadow in shadows if row.is_met is not None]
    return np.stack(
        [
            count([shadow.chance_made for _, shadow in shadows]),
            count([shadow.chance for _, shadow in shadows if shadow.endpoint]),
            count([chance for chance, _ in judged]),
            count([chance for chance, met in judged if met]),
        ]
    )


def _shares(counts: Floats) -> Floats:
    as_was, by_prediction, answers, met = counts
    chances = calibrate(answers, met).at_levels()
    made, other = (float(count @ chances) / as_was.sum() for count in (as_was, by_prediction))
    return np.array([made, other, other - made])
