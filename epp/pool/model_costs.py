"""Costs of each endpoint that the latency models predict, and the models' TPOT error on each endpoint."""

import numpy as np

from epp.pool.slowdowns import median_nearest_none
from epp.pool.state import CAPACITY
from epp.scheduling.snapshot import Floats, Indices

# Weight of a new prompt cost in its moving average.
_COST_WEIGHT = 0.2
# Factor per second by which the least predicted TPOT rises: the minimum doubles in an hour unless predicted again.
_UNLOADED_RISE_PER_S = 2 ** (1 / 3600)
# Share of the logarithm of the TPOT error that is attributed to the endpoint; the rest is chance.
_BIAS_SHARE = 0.5
# Weight of a new bias in its moving average, on a logarithmic scale.
_BIAS_WEIGHT = 0.5


class ModelCosts:
    """Arrays over slots: time per prompt token and TPOT without load, in ms, NaN where the models weren't asked.

    `tpot_bias` is how many times longer than predicted an endpoint's TPOT is, relative to the other endpoints; 1 where
    nothing is known.
    """

    def __init__(self) -> None:
        self.prefill_ms_per_token, self.unloaded_tpot_ms = np.full((2, CAPACITY), np.nan)
        self.tpot_bias: Floats = np.ones(CAPACITY)
        self._learnt_at_s = -np.inf

    def learn(
        self,
        slots: Indices,
        prefill_ms_per_token: Floats,
        tpot_ms: Floats,
        recent_tpot_ms: Floats,
        slowdown: Floats,
        now_s: float,
    ) -> None:
        """Take in the predictions for endpoints under their present load, and the TPOT observed there.

        The least TPOT is stored without the slowdown factor, which `tpot_ms` includes.
        """
        known, fresh = self.prefill_ms_per_token[slots], prefill_ms_per_token
        self.prefill_ms_per_token[slots] = np.where(np.isnan(known), fresh, known + _COST_WEIGHT * (fresh - known))
        rise = min(_UNLOADED_RISE_PER_S ** (now_s - self._learnt_at_s), 2.0)
        self.unloaded_tpot_ms[slots] = np.fmin(self.unloaded_tpot_ms[slots] * rise, tpot_ms / slowdown)
        self._learnt_at_s = now_s
        self._learn_bias(slots, recent_tpot_ms / np.maximum(tpot_ms, 1e-3))

    def forget(self, slot: int) -> None:
        """Forget the endpoint in the slot, which has left the pool."""
        self.prefill_ms_per_token[slot] = self.unloaded_tpot_ms[slot] = np.nan
        self.tpot_bias[slot] = 1.0

    def _learn_bias(self, slots: Indices, off: Floats) -> None:
        """Learn each endpoint's error relative to the median. A common error comes from rising or falling load."""
        known = off[off > 0]
        if len(known):
            bias = np.where(off > 0, (off / np.exp(median_nearest_none(np.log(known)))) ** _BIAS_SHARE, 1.0)
            self.tpot_bias[slots] *= (bias / self.tpot_bias[slots]) ** _BIAS_WEIGHT
