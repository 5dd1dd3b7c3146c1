"""The expected attainment of a placement: the objectives that it meets, less those of other requests that it breaks.

The requests of an endpoint decode together, so a new request slows all of them. The new request takes a share of each
step, and the uncached part of its prompt takes time between steps. The cost depends on the objectives of the others:
it is nothing where all have room, and high where many are about to miss. So strict requests find endpoints that other
requests avoid. A request that no endpoint can serve in time goes where it costs least.

Requests that are still to come have no objectives yet. But a prompt that leaves its cache takes time from them, if
prompts wait on most endpoints. And an endpoint that is full of late answers can meet objectives again only if requests
that would be late go elsewhere.
"""

from dataclasses import dataclass

import numpy as np

from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Predictions, Snapshot

# Spreads are standard deviations of the logarithm. Predicted spreads are too narrow; use at least these.
# Without a predicted median, use exactly these.
_TTFT_SPREAD, _TPOT_SPREAD = 0.3, 0.25
# Least spread of the TPOT of a response in flight, reached when it is all but finished.
_LEAST_SPREAD = 0.02
# Standard deviations from the median to the 0.9-quantile of a normal distribution.
_UPPER_QUANTILE_Z = 1.2816
# Weight of a prompt's prefill time, found by the evaluation. A delayed request stays longer and slows later ones.
_PROMPT_WEIGHT = 3.0
# Weight, in requests, of the total time relative to the fastest endpoint, found by the evaluation. It breaks near ties.
_SPEED_WEIGHT = 0.05
# Weight, in requests, of finding as many cached tokens as a mean request has, if prompts wait as long as an answer
# takes. Found by the evaluation.
_CACHE_WEIGHT = 4.0
# Weight, in requests, of keeping an endpoint from requests that it could serve in time. Found by the evaluation.
_RECOVERY_WEIGHT = 0.5
# Expected losses up to this many requests count as zero; found by the evaluation.
_LEAST_LOSS = 0.01
# A step counts as stalled beyond this many usual steps plus the waiting prompts; found by the evaluation.
_USUAL_STEPS = 4.0
# Least share of an endpoint's TPOT that grows with its load; found by the evaluation.
_LEAST_LOADED_SHARE = 0.02
# Slope of the logistic curve that is nearest to the normal distribution function.
_LOGISTIC = 1.702


@dataclass(frozen=True, slots=True)
class _Latency:
    """A log-normal latency for each candidate: the median in ms, and the standard deviation of the logarithm."""

    median_ms: Floats
    spread: Floats

    def chance_within(self, slo_ms: float | None) -> Floats:
        """Return the probability of meeting an objective; 1 without an objective, 0 without a prediction."""
        if slo_ms is None:
            return np.ones(len(self.median_ms))
        chance = _chance(slo_ms, self.median_ms, self.spread)
        return np.where(np.isnan(chance), 0.0, chance)


@dataclass(frozen=True, slots=True)
class Worth:
    """The expected attainment of a placement on each candidate, in requests; NaN where nothing is predicted.

    `gained` is the probability that the new request meets its objectives.
    `lost` is how many requests in flight are expected to miss their objectives because of the placement.
    `displaced` is what the endpoint could do for such requests if it were not full of late answers, in requests.
    `takes_ms` is the new request's own time plus the delay that it causes to all requests in flight.
    `spared` is what the cached part of the prompt is worth to requests that are still to come.
    """

    gained: Floats
    lost: Floats
    displaced: Floats
    takes_ms: Floats
    spared: Floats

    @property
    def total(self) -> Floats:
        """The value to maximise; -inf where nothing is predicted."""
        slow = _SPEED_WEIGHT * self.takes_ms / np.fmin.reduce(self.takes_ms)
        total: Floats = self.gained - self.lost - self.displaced - slow + self.spared
        return np.where(np.isnan(total), -np.inf, total)

    @property
    def is_a_loss(self) -> bool:
        """True if every candidate has a prediction, and the request costs more than it gains on each."""
        return bool(((self.lost - self.gained > _LEAST_LOSS) & ~np.isnan(self.takes_ms)).all())


def worth(request: Request, candidates: Snapshot, predictions: Predictions, buffer_factor: float) -> Worth:
    """Return the expected attainment of a placement on each candidate; `buffer_factor` scales TPOT objectives."""
    ttft, tpot = _latencies(candidates, predictions)
    tpot_slo_ms = None if request.slo_tpot_ms is None else request.slo_tpot_ms * buffer_factor
    slowed_ms = _slowed_ms(request, candidates, tpot.median_ms)
    lost, late = _at_risk(candidates, tpot, slowed_ms, buffer_factor)
    unloaded = _Latency(candidates.unloaded_tpot_ms * candidates.tpot_bias, tpot.spread)
    return Worth(
        gained=ttft.chance_within(request.slo_ttft_ms) * tpot.chance_within(tpot_slo_ms),
        lost=lost,
        displaced=_RECOVERY_WEIGHT * late * unloaded.chance_within(tpot_slo_ms),
        takes_ms=ttft.median_ms
        + (tpot.median_ms + candidates.in_flight * slowed_ms) * max(candidates.output_tokens, 1.0),
        spared=_spared(request, candidates, tpot.median_ms),
    )


def chances(request: Request, candidates: Snapshot, predictions: Predictions) -> Floats:
    """Return the probability that the request meets its objectives on each candidate; 0 where nothing is predicted."""
    ttft, tpot = _latencies(candidates, predictions)
    return ttft.chance_within(request.slo_ttft_ms) * tpot.chance_within(request.slo_tpot_ms)


def _latencies(candidates: Snapshot, predictions: Predictions) -> tuple[_Latency, _Latency]:
    ttft = _latency(predictions.ttft_ms, predictions.ttft_median_ms, _TTFT_SPREAD)
    tpot = _latency(predictions.tpot_ms, predictions.tpot_median_ms, _TPOT_SPREAD)
    return (
        _Latency(ttft.median_ms + _standing_ms(candidates), ttft.spread),
        _Latency(tpot.median_ms * candidates.tpot_bias, tpot.spread),
    )


def _latency(value_ms: Floats, median_ms: Floats | None, least_spread: float) -> _Latency:
    """Return the distribution that a predicted upper quantile and median describe.

    Without a median, the spread is `least_spread`. Values that are not finite count as missing.
    """
    value_ms = np.where(np.isfinite(value_ms), np.maximum(value_ms, 1e-3), np.nan)
    if median_ms is None:
        median_ms = value_ms * np.exp(-_UPPER_QUANTILE_Z * least_spread)
        return _Latency(median_ms, np.full(len(value_ms), least_spread))
    known = np.isfinite(value_ms) & np.isfinite(median_ms)
    median_ms = np.where(known, np.maximum(median_ms, 1e-3), np.nan)
    return _Latency(median_ms, np.maximum(np.log(value_ms / median_ms) / _UPPER_QUANTILE_Z, least_spread))


def _standing_ms(candidates: Snapshot) -> Floats:
    """Return how many ms longer than usual each endpoint has emitted no token; a stall may last as long again.

    Subtract the minimum over the endpoints, since a common stall is a pause of this picker or of the network.
    """
    step_ms = np.nan_to_num(candidates.recent_tpot_ms)
    prompts_ms = candidates.prefill_tokens * np.nan_to_num(candidates.prefill_ms_per_token)
    beyond_ms = np.maximum(np.nan_to_num(candidates.ms_since_token) - _USUAL_STEPS * step_ms - prompts_ms, 0.0)
    standing_ms: Floats = beyond_ms - beyond_ms.min(initial=np.inf)
    return standing_ms


def _slowed_ms(request: Request, candidates: Snapshot, tpot_ms: Floats) -> Floats:
    """Return how many ms the request adds to the TPOT of each request beside it.

    The parts are the request's share of a step, and its uncached prompt spread over the tokens of a mean response.
    """
    unloaded_ms = candidates.unloaded_tpot_ms * candidates.tpot_bias
    unloaded_ms = np.where(np.isnan(unloaded_ms), 0.5 * tpot_ms, unloaded_ms)
    loaded_ms = np.maximum(tpot_ms - unloaded_ms, _LEAST_LOADED_SHARE * tpot_ms)
    prompt_ms = candidates.prefill_ms_per_token * request.input_tokens * (1.0 - candidates.prefix_score)
    prompt_ms = np.where(np.isnan(prompt_ms), 0.0, prompt_ms)
    return loaded_ms / (candidates.in_flight + 1) + _PROMPT_WEIGHT * prompt_ms / max(candidates.output_tokens, 1.0)


def _spared(request: Request, candidates: Snapshot, tpot_ms: Floats) -> Floats:
    """Return the value of the prompt's cached part for requests to come, in requests; 0 where nothing is cached.

    The value grows with the time that waiting prompts take of an answer's time, since answers wait while prompts are
    read. The time is that of the median endpoint: one endpoint with a queue leaves time enough on the others. The
    cached tokens count relative to those of a mean request in flight.
    """
    if not candidates.prefix_score.any():
        return np.zeros(len(candidates))
    waiting_ms = np.fmax(candidates.prefill_tokens * candidates.prefill_ms_per_token, 0.0)  # NaN counts as 0
    waiting_ms.sort()
    middle = max(min(len(waiting_ms) // 2, len(waiting_ms) - 2), 0)  # of two endpoints, the one with less
    answer_ms = max(candidates.output_tokens, 1.0) * np.fmin.reduce(tpot_ms)
    scarcity = waiting_ms[middle] / answer_ms
    held_tokens = candidates.prefill_tokens.sum() + candidates.decode_tokens.sum()
    mean_tokens = max(held_tokens / max(candidates.in_flight.sum(), 1.0), 1.0)
    spared: Floats = _CACHE_WEIGHT * scarcity * candidates.prefix_score * (request.input_tokens / mean_tokens)
    return spared


def _at_risk(candidates: Snapshot, tpot: _Latency, slowed_ms: Floats, buffer_factor: float) -> tuple[Floats, Floats]:
    """Return how many requests in flight are expected to miss their TPOT objective because of the new one.

    Also return the share of the requests in flight that are expected to miss it anyway.

    The tokens generated so far are certain. The tokens still to come are expected to be as many as of a mean response.
    """
    asked, to_come = candidates.tpot_slos, max(candidates.output_tokens, 1.0)
    if asked is None:
        return np.zeros(len(candidates)), np.zeros(len(candidates))
    tokens = asked.tokens + to_come
    to_come_ms = tpot.median_ms[:, None] * to_come
    answer_ms = asked.decoding_ms + to_come_ms
    slos_ms = np.maximum(asked.slo_ms * buffer_factor, 1e-3)
    spread = np.maximum(tpot.spread[:, None] * to_come_ms / answer_ms, _LEAST_SPREAD)
    before = _chance(slos_ms, answer_ms / tokens, spread)
    after = _chance(slos_ms, (answer_ms + slowed_ms[:, None] * to_come) / tokens, spread)
    late = (asked.requests * (1.0 - before)).sum(axis=1) / np.maximum(asked.requests.sum(axis=1), 1.0)
    return (asked.requests * (before - after)).sum(axis=1), late


def _chance(slo_ms: float | Floats, median_ms: Floats, spread: Floats) -> Floats:
    """Return the probability that a latency of this distribution stays within an objective."""
    exponent = (_LOGISTIC / spread) * np.log(median_ms / slo_ms)
    chance: Floats = 1.0 / (1.0 + np.exp(np.clip(exponent, -50.0, 50.0)))
    return chance
