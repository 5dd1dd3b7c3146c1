"""What the latency models say of each endpoint beside a decision's own predictions, and how far they are off there."""

import numpy as np

from epp.pool.slowdowns import median_nearest_none
from epp.pool.state import CAPACITY
from epp.scheduling.snapshot import Floats, Indices

_COST_WEIGHT = 0.2
# The least TPOT that was ever predicted for an endpoint is forgotten by half in an hour.
_UNLOADED_RISE_PER_S = 2 ** (1 / 3600)
# Of the logarithm of what differs half is the endpoint, half chance; so much is taken for the endpoint.
_BIAS_SHARE = 0.5
_BIAS_WEIGHT = 0.5


class ModelCosts:
    """Arrays over slots: what a prompt's token takes and the TPOT without load, NaN where the models weren't asked.

    `tpot_bias` is by which factor an endpoint is taken to be slower than they say, beside the others; 1 where nobody
    can tell.
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
        """What is predicted at this moment of endpoints under their load, and the TPOT that is seen there.

        The least TPOT is kept without the slowdown that predictions contain.
        """
        known, fresh = self.prefill_ms_per_token[slots], prefill_ms_per_token
        self.prefill_ms_per_token[slots] = np.where(np.isnan(known), fresh, known + _COST_WEIGHT * (fresh - known))
        rise = min(_UNLOADED_RISE_PER_S ** (now_s - self._learnt_at_s), 2.0)
        self.unloaded_tpot_ms[slots] = np.fmin(self.unloaded_tpot_ms[slots] * rise, tpot_ms / slowdown)
        self._learnt_at_s = now_s
        self._learn_bias(slots, recent_tpot_ms / np.maximum(tpot_ms, 1e-3))

    def forget(self, slot: int) -> None:
        """The endpoint has left."""
        self.prefill_ms_per_token[slot] = self.unloaded_tpot_ms[slot] = np.nan
        self.tpot_bias[slot] = 1.0

    def _learn_bias(self, slots: Indices, off: Floats) -> None:
        """What all endpoints are off by says nothing of any: the load rises, or falls."""
        known = off[off > 0]
        if len(known):
            bias = np.where(off > 0, (off / np.exp(median_nearest_none(np.log(known)))) ** _BIAS_SHARE, 1.0)
            self.tpot_bias[slots] *= (bias / self.tpot_bias[slots]) ** _BIAS_WEIGHT
