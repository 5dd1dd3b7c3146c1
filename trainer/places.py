"""Choose the rows that judge all others, so that no place has a majority by the number of its rows.

A place is a bucket of the window: similar queue, KV cache and prefix score. Whoever sends many rows of one place
outnumbers the clean rows there, and a median would follow. So a place may not gain too large a share of the rows at
once, and rows with the same features may never have a large one.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.window import bucket_numbers, row_hashes
from trainer.wire import Matrix

# New rows, whose shares are compared with those of the earlier judges.
_NEW_ROWS = 1_000
# A place may have so many times its share of the earlier judges. Load seldom rises or falls faster.
_GROWTH = 1.5
# The share of new rows that any place may have.
_FREE_SHARE = 0.01
# The share of all rows that rows with the same features may have. A tree finds rows apart that are a few in a thousand.
_SAME_SHARE = 0.002
# If fewer rows remain, most rows are of places that became frequent: the load is another one, and all rows judge.
_FEWEST_LEFT = 0.6


def representative(features: Matrix) -> NDArray[np.bool_]:
    """Return true for each row of `features` [rows, ROW_FEATURES], in order of arrival, that may judge others."""
    count = len(features)
    if not count:
        return np.ones(0, dtype=np.bool_)
    same, places = (
        np.unique(keys, return_inverse=True)[1] for keys in (row_hashes(features), bucket_numbers(features))
    )
    found = _within_limits(same, np.full(int(same.max()) + 1, _SAME_SHARE))
    for new in np.array_split(np.arange(count), max(1, count // _NEW_ROWS)):
        judges = places[: new[0]][found[: new[0]]]
        earlier = np.bincount(judges, minlength=int(places.max()) + 1) / max(1, len(judges))
        found[new] &= _within_limits(places[new], np.maximum(_GROWTH * earlier, _FREE_SHARE))
    return found


def _within_limits(groups: NDArray[np.intp], limits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Choose rows so that no group has more than its limit, a share of the rows. They are spread over the group."""
    counts = np.bincount(groups, minlength=len(limits))
    allowed = np.maximum(limits * len(groups), 1)
    kept = np.minimum(1.0, allowed / np.maximum(counts, 1))[groups]
    order = np.argsort(groups, kind="stable")
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen: NDArray[np.bool_] = np.floor((rank + 1) * kept) > np.floor(rank * kept)
    return chosen if chosen.mean() >= _FEWEST_LEFT else np.ones_like(chosen)
