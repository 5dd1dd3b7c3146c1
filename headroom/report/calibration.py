"""Calibrates the expected chances of meeting objectives by the observed answers."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from headroom.report.intervals import Floats

# Chances are counted at these levels. The outermost are not 0 and 1, since nothing is that sure.
LEVELS: Floats = np.linspace(0.0005, 0.9995, 1000)
_LOGITS: Floats = logit(LEVELS)
# Weight of the assumption that chances are right. Tens of answers outweigh so small a weight.
_BELIEF = 0.1


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps a chance's log-odds to `intercept` + `slope` times them.

    This is the logistic recalibration of D. R. Cox, Two Further Applications of a Model for Binary Regression (1958).
    """

    intercept: float
    slope: float

    def at_levels(self) -> Floats:
        """Return the calibrated chance of each level."""
        found: Floats = expit(self.intercept + self.slope * _LOGITS)
        return found


def levels_of(chances: Floats) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the index of each chance's level."""
    return np.minimum((chances * len(LEVELS)).astype(np.intp), len(LEVELS) - 1)


def calibrate(answers: Floats, met: Floats) -> Calibration:
    """Fit to `answers`, counts by level of expected chance, of which `met` met their objectives."""

    def loss(parameters: Floats) -> tuple[float, Floats]:
        intercept, slope = parameters
        log_odds = intercept + slope * _LOGITS
        wrong = answers * expit(log_odds) - met
        off = np.array([intercept, slope - 1])
        value = float(np.sum(answers * np.logaddexp(0, log_odds) - met * log_odds) + _BELIEF / 2 * np.sum(off**2))
        return value, np.array([wrong.sum(), (wrong * _LOGITS).sum()]) + _BELIEF * off

    # A negative slope would say that what is expected to be late is in time.
    found = minimize(loss, np.array([0.0, 1.0]), jac=True, bounds=[(None, None), (0, None)], method="L-BFGS-B")
    return Calibration(float(found.x[0]), float(found.x[1]))
