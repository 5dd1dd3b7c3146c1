"""The progress of the responses in flight, grouped by TPOT objective. It shows which ones a slower endpoint makes late.

Every step of an endpoint brings one token to each response that decodes there. So there is no need to count the tokens
of each response: observed responses count the endpoint's steps, and each response notes the step at which it began.
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
    """The counted state of a request with a TPOT objective. `first_at_s` is None until the first token."""

    slot: int
    place: int
    slo_ms: float
    first_at_s: float | None = None
    first_steps: float = 0.0


class Progress:
    """Writes this worker's counts, and reads the counts of all workers."""

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
        # Sums of floats drift, so an empty group is set to exactly 0.
        if not counts[0]:
            counts[:] = 0.0
        elif not counts[_DECODING]:
            counts[_DECODING:] = 0.0

    def observes(self, slot: int, now_s: float) -> None:
        """Count the endpoint's steps by one more observed response from now on."""
        self._own[_STEPS, slot], self._own[_STEPS_AT, slot] = self._steps(slot, now_s), now_s
        self._own[_OBSERVED, slot] += 1

    def observed(self, slot: int, tokens: int, now_s: float) -> None:
        """Take in output tokens of the responses observed on the endpoint."""
        own, observed = self._own, self._own[_OBSERVED, slot]
        own[_STEPS, slot] = own[_STEPS, slot] + tokens / observed if observed else self._steps(slot, now_s)
        own[_STEPS_AT, slot] = now_s

    def tpot_slos(self, slots: Indices, now_s: float) -> TpotSlos:
        """Return objectives and progress of the requests in flight on these endpoints, in the order of their slots."""
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
        """Return the steps of one endpoint, as this worker counts them."""
        return float(_steps_so_far(self._own[_PACE, slot], now_s))


def _steps_so_far(pace: Floats, now_s: float) -> Floats:
    """Return the steps from the rows of _PACE; without an observed response, extrapolate by time and recent TPOT."""
    steps, at_s, observed, recent_tpot_ms = pace
    by_time = (observed == 0) & (recent_tpot_ms > 0)
    so_far: Floats = steps + np.where(by_time, (now_s - at_s) * 1000 / np.where(by_time, recent_tpot_ms, 1.0), 0.0)
    return so_far
