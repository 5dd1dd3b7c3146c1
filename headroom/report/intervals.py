"""Means with their intervals by Student's t distribution, over blocks of requests that follow each other."""

import math
from collections.abc import Sequence
from statistics import stdev

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
# Requests that follow each other meet their objectives together, so an interval is over blocks of them.
_MOST_BLOCKS, _LEAST_BLOCKS, _LEAST_BLOCK = 30, 5, 20


class Estimate(msgspec.Struct, frozen=True):
    """A mean and half the width of its 95 % interval; the width is None for too few requests."""

    mean: float
    half_width: float | None


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the interval of the mean. Needs at least two values, all finite."""
    return float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * stdev(values) / math.sqrt(len(values))


def block_count(requests: int) -> int:
    """Return the number of blocks for an interval; 0 for too few requests."""
    blocks = min(_MOST_BLOCKS, requests // _LEAST_BLOCK)
    return blocks if blocks >= _LEAST_BLOCKS else 0


def estimate(values: Floats) -> Estimate:
    """Return the mean with its interval by the means of the blocks."""
    blocks = block_count(len(values))
    if not blocks:
        return Estimate(float(values.mean()), None)
    means = [float(block.mean()) for block in np.array_split(values, blocks)]
    return Estimate(float(values.mean()), half_width(means))
