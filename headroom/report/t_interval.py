"""The interval of a mean by Student's t distribution."""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.special import stdtrit

CONFIDENCE = 0.95


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the interval of the mean. Needs at least two values, all finite."""
    return float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * stdev(values) / math.sqrt(len(values))
