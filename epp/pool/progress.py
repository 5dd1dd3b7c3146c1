"""How far the answers in flight have come, by their TPOT objectives: whom a slower endpoint would make late.

Every step of an endpoint brings a token to all that decode there. So nobody need count each answer's tokens: it is
enough to count the endpoint's steps, by the answers that are observed, and to know at which one each answer began.
"""

from dataclasses import dataclass

import numpy as np

from epp.pool.state import BY_TPOT_SLO, OWN, PoolState, selection, tpot_slo_place
from epp.scheduling.snapshot import Floats, Indices, TpotSlos

_DECODING = BY_TPOT_SLO.index("decoding")
_PACE = [OWN.index(name) for name in ("steps", "steps_at_s", "observed", "recent_tpot_ms")]
_STEPS, _STEPS_AT, _OBSERVED, _ = _PACE


@dataclass(slots=True)
class Counted:
    """What is counted of a request with a TPOT objective: where, and from its first token on when that came."""

    slot: int
    place: int
    slo_ms: float
    first_at_s: float | None = None
    first_steps: float = 0.0


class Progress:
    """This worker's counts; what it reads is of all workers."""

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self._own = state.own
        self._counts = state.own_by_tpot_slo

    def dispatched(self, slot: int, tpot_slo_ms: float) -> Counted:
        counted = Counted(slot, tpot_slo_place(tpot_slo_ms), tpot_slo_ms)
        self._counts[:_DECODING, counted.place, slot] += (1, tpot_slo_ms)
        return counted

    def first_token(self, counted: Counted, now_s: float) -> None:
        counted.first_at_s, counted.first_steps = now_s, self._steps(counted.slot, now_s)
        self._counts[_DECODING:, counted.place, counted.slot] += (1, counted.first_at_s, counted.first_steps)

    def ended(self, counted: Counted) -> None:
        counts = self._counts[:, counted.place, counted.slot]
        counts[:_DECODING] -= (1, counted.slo_ms)
        if counted.first_at_s is not None:
            counts[_DECODING:] -= (1, counted.first_at_s, counted.first_steps)
        # Sums of floats drift.
        if not counts[0]:
            counts[:] = 0.0
        elif not counts[_DECODING]:
            counts[_DECODING:] = 0.0

    def observes(self, slot: int, now_s: float) -> None:
        """From now on steps are counted by one answer more."""
        self._own[_STEPS, slot], self._own[_STEPS_AT, slot] = self._steps(slot, now_s), now_s
        self._own[_OBSERVED, slot] += 1

    def observed(self, slot: int, tokens: int, now_s: float) -> None:
        """Takes in tokens of the answers that are observed there."""
        own, observed = self._own, self._own[_OBSERVED, slot]
        own[_STEPS, slot] = own[_STEPS, slot] + tokens / observed if observed else self._steps(slot, now_s)
        own[_STEPS_AT, slot] = now_s

    def tpot_slos(self, slots: Indices, now_s: float) -> TpotSlos:
        """Of endpoints in the order of their slots."""
        taken = selection(slots)
        counts = self._state.by_tpot_slo[..., taken]
        requests: Floats = counts[:, 0].sum(axis=0)
        asked = np.flatnonzero(requests.any(axis=1))
        slos_ms, decoding, first_at_s, first_steps = counts[:, 1:, asked].swapaxes(0, 1)
        steps = _steps_so_far(self._state.workers[:, :, taken][:, _PACE].swapaxes(0, 1), now_s)
        tokens = np.maximum((decoding * steps[:, np.newaxis] - first_steps).sum(axis=0), 0.0)
        decoding_ms = np.maximum((decoding * now_s - first_at_s).sum(axis=0), 0.0) * 1000
        requests = requests[asked]
        averages = (total.T / np.maximum(requests.T, 1.0) for total in (slos_ms.sum(axis=0), tokens, decoding_ms))
        return TpotSlos(requests.T, *averages)

    def _steps(self, slot: int, now_s: float) -> float:
        """Of one endpoint, as this worker counts them."""
        return float(_steps_so_far(self._own[_PACE, slot], now_s))


def _steps_so_far(pace: Floats, now_s: float) -> Floats:
    """From the rows of _PACE; where no answer is observed, by the time and the speed that is known."""
    steps, at_s, observed, recent_tpot_ms = pace
    is_told = (observed == 0) & (recent_tpot_ms > 0)
    so_far: Floats = steps + np.where(is_told, (now_s - at_s) * 1000 / np.where(is_told, recent_tpot_ms, 1.0), 0.0)
    return so_far
