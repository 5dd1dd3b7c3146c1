"""Pickers: from total scores to an ordered choice."""

import numpy as np

from epp.scheduling.plugin import Picker, plugin
from epp.scheduling.snapshot import Floats, Indices


@plugin("max-score-picker")
class MaxScorePicker(Picker, frozen=True):
    """The highest score; ties fall at random."""

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        if self.max_num_of_endpoints == 1:
            best = np.flatnonzero(scores == scores.max())
            return best[[int(rng.integers(len(best)))]]
        shuffled = rng.permutation(len(scores))
        order = np.argsort(-scores[shuffled], kind="stable")
        return shuffled[order][: self.max_num_of_endpoints]


@plugin("random-picker")
class RandomPicker(Picker, frozen=True):
    """Any candidate, whatever its score."""

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        return rng.permutation(len(scores))[: self.max_num_of_endpoints]


@plugin("weighted-random-picker")
class WeightedRandomPicker(Picker, frozen=True):
    """A draw without replacement, in proportion to the scores (Efraimidis and Spirakis' A-Res: key U^(1/score))."""

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        if not scores.any():
            return rng.permutation(len(scores))[: self.max_num_of_endpoints]
        with np.errstate(divide="ignore"):
            keys = np.where(scores > 0, np.log(rng.random(len(scores))) / scores, -np.inf)
        return np.argsort(-keys)[: self.max_num_of_endpoints]
