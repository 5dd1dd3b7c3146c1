"""A request in flight, and what is known of the progress of all that are on an endpoint."""

from dataclasses import dataclass

import numpy as np

from epp.pool.progress import Counted
from epp.pool.state import OWN, REQUESTS
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats

_DECODING, _DECODING_SINCE, _OBSERVED, _TOKEN_AT, _RECENT_TPOT = (
    OWN.index(name) for name in ("decoding", "decoding_since_s", "observed", "token_at_s", "recent_tpot_ms")
)


# Seconds from a request's dispatch until an engine's page shows it, about: its way there, and a step.
UNSEEN_S = 0.05
# Age of a page up to which its queue counts as it is. A little more, since rounds of scrapes vary in length.
_FRESH_S = 1.2 * UNSEEN_S


@dataclass(slots=True, eq=False)
class InFlight:
    """A request's share of its endpoint's load. OwnRequests.finish gives back whatever is left of the share.

    `counted` is set for a request with a TPOT objective.
    `decoding_since_s` is set for an unobserved response, whose tokens are estimated from the time passed.
    `is_observed` is set at the first token of an observed response.
    """

    slot: int
    request: Request
    prefill_tokens: int
    tokens_ahead: int
    decode_tokens: int = 0
    decoding_since_s: float | None = None
    counted: Counted | None = None
    has_first_token: bool = False
    is_observed: bool = False
    done: bool = False


def ms_since_token(own: Floats, now_s: float) -> Floats:
    """Return ms since the last output token; NaN unless a response on the endpoint is being observed.

    The result is never negative, although another worker may have seen a token after `now_s`.
    """
    since: Floats = np.maximum(now_s - own[_TOKEN_AT], 0.0) * 1000
    since[own[_OBSERVED] == 0] = np.nan
    return since


def uncounted_tokens(own: Floats, now_s: float) -> Floats:
    """Estimate the output tokens of unobserved responses from the time since their first token and the recent TPOT."""
    decoding_s = own[_DECODING] * now_s - own[_DECODING_SINCE]
    with np.errstate(invalid="ignore", divide="ignore"):
        tokens = decoding_s * 1000 / own[_RECENT_TPOT]
    estimate: Floats = np.where(np.isfinite(tokens), tokens, 0.0)
    return estimate


def load_now(scraped: Floats, own: Floats, age_s: Floats) -> tuple[Floats, Floats]:
    """Return the waiting and running requests of endpoints: those of the last page, brought up to date.

    `scraped` and `own` have the rows SCRAPED and OWN. What has changed since the page, `age_s` ago, are the picker's
    own requests: one that ended counts no longer; one that was sent counts as waiting for UNSEEN_S, then as running.
    Once a page is older than that, no more of the picker's own requests wait than have no first token. Other senders'
    requests stay as they were.
    """
    waiting, running, _, _, dispatched_before, in_flight_before, prefilling_before, *_ = scraped
    dispatched, in_flight, prefilling, just_sent = own[: len(REQUESTS) + 1]
    total = waiting + running + in_flight - in_flight_before
    # A worker that ended takes what it sent from the counts.
    unseen = np.maximum(np.minimum(dispatched - dispatched_before, np.minimum(just_sent, in_flight)), 0.0)
    if waiting.any():
        own_waiting = np.minimum(waiting, np.maximum(prefilling - unseen, 0.0))
        old_queue = own_waiting + np.maximum(waiting - prefilling_before, 0.0)
        waiting = np.where(age_s > _FRESH_S, old_queue, waiting)
    now_waiting: Floats = waiting + unseen
    return now_waiting, np.maximum(total - now_waiting, 0.0)
