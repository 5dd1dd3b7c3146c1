"""What a placement is worth: the objectives that it is expected to meet, less those of others that it puts at risk.

An endpoint's requests decode together, so whoever joins slows all of them, by a share of each step and by the time that
the uncached part of the prompt takes between steps. What that costs depends on what the others asked for: nothing
where all have room, much where many are about to miss. So requests with strict objectives find endpoints that others
keep off, and whom nothing can save is put where least is lost.
"""

from dataclasses import dataclass

import numpy as np

from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Predictions, Snapshot

# What is predicted is surer than what comes of it: the least spread (standard deviation of the logarithm) that is
# believed, and the one where there is no median to tell it.
_TTFT_SPREAD, _TPOT_SPREAD = 0.3, 0.25
# Of an answer that is all but finished.
_LEAST_SPREAD = 0.02
_UPPER_QUANTILE_Z = 1.2816
# The following were found by the evaluation. A prompt's time counts so many times, since whoever it delays stays
# longer, and slows those who come later.
_PROMPT_WEIGHT = 3.0
# Between endpoints that are nearly alike in all this, the one where all are served sooner.
_SPEED_WEIGHT = 0.05
# In requests: what of a loss is none.
_LEAST_LOSS = 0.01
# A step may take so many usual ones, and the prompts that are to be read, before it counts as one that stands still.
_USUAL_STEPS = 4.0
# An endpoint's TPOT has at least this share that grows with its load.
_LEAST_LOADED_SHARE = 0.02
# The logistic curve that is nearest to the normal distribution's.
_LOGISTIC = 1.702


@dataclass(frozen=True, slots=True)
class _Latency:
    """A predicted distribution for each candidate: its median in ms, and the spread of its logarithm."""

    median_ms: Floats
    spread: Floats

    def chance_within(self, slo_ms: float | None) -> Floats:
        """Of meeting an objective; 1 where nothing is asked, 0 where nothing is predicted."""
        if slo_ms is None:
            return np.ones(len(self.median_ms))
        chance = _chance(slo_ms, self.median_ms, self.spread)
        return np.where(np.isnan(chance), 0.0, chance)


@dataclass(frozen=True, slots=True)
class Worth:
    """Of each candidate, in requests: who is expected to meet objectives, and who to miss them for it.

    `takes_ms` is the time of all of them together that the placement takes. NaN where nothing is predicted.
    """

    gained: Floats
    lost: Floats
    takes_ms: Floats

    @property
    def total(self) -> Floats:
        """What to place by; -inf where nothing is predicted."""
        total: Floats = self.gained - self.lost - _SPEED_WEIGHT * self.takes_ms / np.fmin.reduce(self.takes_ms)
        return np.where(np.isnan(total), -np.inf, total)

    @property
    def is_a_loss(self) -> bool:
        """Whether more is lost than gained wherever the request goes, as far as that is known of all candidates."""
        return bool(((self.lost - self.gained > _LEAST_LOSS) & ~np.isnan(self.takes_ms)).all())


def worth(request: Request, candidates: Snapshot, predictions: Predictions, buffer_factor: float) -> Worth:
    """`buffer_factor` scales TPOT objectives."""
    ttft = _latency(predictions.ttft_ms, predictions.ttft_median_ms, _TTFT_SPREAD)
    tpot = _latency(predictions.tpot_ms, predictions.tpot_median_ms, _TPOT_SPREAD)
    ttft = _Latency(ttft.median_ms + _standing_ms(candidates), ttft.spread)
    tpot = _Latency(tpot.median_ms * candidates.tpot_bias, tpot.spread)
    tpot_slo_ms = None if request.slo_tpot_ms is None else request.slo_tpot_ms * buffer_factor
    slowed_ms = _slowed_ms(request, candidates, tpot.median_ms)
    return Worth(
        gained=ttft.chance_within(request.slo_ttft_ms) * tpot.chance_within(tpot_slo_ms),
        lost=_expected_losses(candidates, tpot, slowed_ms, buffer_factor),
        takes_ms=ttft.median_ms
        + (tpot.median_ms + candidates.in_flight * slowed_ms) * max(candidates.output_tokens, 1.0),
    )


def _latency(value_ms: Floats, median_ms: Floats | None, least_spread: float) -> _Latency:
    """Of an upper quantile alone, the median is taken to be as far below as the least spread says.

    What is no finite number is as good as nothing.
    """
    value_ms = np.where(np.isfinite(value_ms), np.maximum(value_ms, 1e-3), np.nan)
    if median_ms is None:
        median_ms = value_ms * np.exp(-_UPPER_QUANTILE_Z * least_spread)
        return _Latency(median_ms, np.full(len(value_ms), least_spread))
    known = np.isfinite(value_ms) & np.isfinite(median_ms)
    median_ms = np.where(known, np.maximum(median_ms, 1e-3), np.nan)
    return _Latency(median_ms, np.maximum(np.log(value_ms / median_ms) / _UPPER_QUANTILE_Z, least_spread))


def _standing_ms(candidates: Snapshot) -> Floats:
    """For how much longer than is usual an endpoint hasn't been seen to emit a token: it may take as long again.

    What all of them have in common is this picker's own pause, or the network's.
    """
    step_ms = np.nan_to_num(candidates.recent_tpot_ms)
    prompts_ms = candidates.prefill_tokens * np.nan_to_num(candidates.prefill_ms_per_token)
    beyond_ms = np.maximum(np.nan_to_num(candidates.ms_since_token) - _USUAL_STEPS * step_ms - prompts_ms, 0.0)
    standing_ms: Floats = beyond_ms - beyond_ms.min(initial=np.inf)
    return standing_ms


def _slowed_ms(request: Request, candidates: Snapshot, tpot_ms: Floats) -> Floats:
    """By how much the request raises the TPOT of those that run beside it: its share of a step, and its prompt."""
    unloaded_ms = candidates.unloaded_tpot_ms * candidates.tpot_bias
    unloaded_ms = np.where(np.isnan(unloaded_ms), 0.5 * tpot_ms, unloaded_ms)
    loaded_ms = np.maximum(tpot_ms - unloaded_ms, _LEAST_LOADED_SHARE * tpot_ms)
    prompt_ms = candidates.prefill_ms_per_token * request.input_tokens * (1.0 - candidates.prefix_score)
    prompt_ms = np.where(np.isnan(prompt_ms), 0.0, prompt_ms)
    return loaded_ms / (candidates.in_flight + 1) + _PROMPT_WEIGHT * prompt_ms / max(candidates.output_tokens, 1.0)


def _expected_losses(candidates: Snapshot, tpot: _Latency, slowed_ms: Floats, buffer_factor: float) -> Floats:
    """How many of the requests in flight are expected to miss their TPOT objective for it.

    Of an answer's TPOT what is generated is certain, and as much is expected to come as of any answer.
    """
    asked, to_come = candidates.tpot_slos, max(candidates.output_tokens, 1.0)
    if asked is None:
        return np.zeros(len(candidates))
    tokens = asked.tokens + to_come
    to_come_ms = tpot.median_ms[:, None] * to_come
    answer_ms = asked.decoding_ms + to_come_ms
    slos_ms = np.maximum(asked.slo_ms * buffer_factor, 1e-3)
    spread = np.maximum(tpot.spread[:, None] * to_come_ms / answer_ms, _LEAST_SPREAD)
    before = _chance(slos_ms, answer_ms / tokens, spread)
    after = _chance(slos_ms, (answer_ms + slowed_ms[:, None] * to_come) / tokens, spread)
    lost: Floats = (asked.requests * (before - after)).sum(axis=1)
    return lost


def _chance(slo_ms: float | Floats, median_ms: Floats, spread: Floats) -> Floats:
    """That a latency of this distribution stays within an objective."""
    exponent = (_LOGISTIC / spread) * np.log(median_ms / slo_ms)
    chance: Floats = 1.0 / (1.0 + np.exp(np.clip(exponent, -50.0, 50.0)))
    return chance
