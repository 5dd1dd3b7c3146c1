"""Pickers turn total scores into an ordered choice."""

import numpy as np

from epp.scheduling.configuration.parameters import Count
from epp.scheduling.plugin import Picker, plugin
from epp.scheduling.snapshot import Floats, Indices


@plugin("max-score-picker")
class MaxScorePicker(Picker, frozen=True):
    """Picks the highest score; ties are broken at random."""

    max_num_of_endpoints: Count = 1

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        if self.max_num_of_endpoints == 1:
            best: Indices = (scores == scores.max()).nonzero()[0]
            return best if len(best) == 1 else best[[int(rng.random() * len(best))]]
        shuffled = rng.permutation(len(scores))
        order = np.argsort(-scores[shuffled], kind="stable")
        return shuffled[order][: self.max_num_of_endpoints]


@plugin("random-picker")
class RandomPicker(Picker, frozen=True):
    """Picks a candidate at random and ignores the scores."""

    max_num_of_endpoints: Count = 1

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        return _any(len(scores), self.max_num_of_endpoints, rng)


@plugin("weighted-random-picker")
class WeightedRandomPicker(Picker, frozen=True):
    """Draws without replacement, in proportion to the scores; draws uniformly when all scores are 0.

    One candidate is drawn by cumulative scores, several by A-Res of Efraimidis and Spirakis, with keys U^(1/score).
    """

    max_num_of_endpoints: Count = 1

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        sums = scores.cumsum()
        if not sums[-1] > 0:
            return _any(len(scores), self.max_num_of_endpoints, rng)
        if self.max_num_of_endpoints == 1:
            return np.array([sums[:-1].searchsorted(rng.random() * sums[-1], side="right")])
        with np.errstate(divide="ignore", over="ignore"):
            keys = np.where(scores > 0, np.log(rng.random(len(scores))) / scores, -np.inf)
        return np.argsort(-keys)[: self.max_num_of_endpoints]


def _any(candidates: int, count: int, rng: np.random.Generator) -> Indices:
    if count == 1:
        return np.array([int(rng.random() * candidates)])
    return rng.permutation(candidates)[:count]
