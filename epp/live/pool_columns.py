"""The pool as the live page shows it: a list of each quantity over all endpoints."""

from typing import Any

import numpy as np

from epp.pool.pool import Pool
from epp.scheduling.snapshot import Floats


def pool_columns(pool: Pool) -> dict[str, list[Any]]:
    """Return lists of the same length, one value per endpoint, None where a value is unknown.

    `kv` is a share from 0 to 1. `ttft_ms` and `tpot_ms` are recent averages of what this picker has seen.
    `left_out_s` is how long an endpoint that fails its requests gets none.
    """
    seen = pool.everyone()
    pauses = pool.failures.pauses_s()
    return {
        "name": [endpoint.name for endpoint in seen.endpoints],
        "address": [endpoint.address for endpoint in seen.endpoints],
        "waiting": _rounded(seen.waiting),
        "running": _rounded(seen.running),
        "kv": _rounded(seen.kv_usage),
        "in_flight": _rounded(seen.in_flight),
        "prefill_tokens": _rounded(seen.prefill_tokens),
        "ttft_ms": _rounded(pool.recent_ttft_ms(seen.slots)),
        "tpot_ms": _rounded(seen.recent_tpot_ms),
        "slowdown": _rounded(seen.slowdown),
        "age_s": _rounded(seen.metrics_age_s),
        "stale": seen.stale.tolist(),
        "left_out_s": [round(pauses.get(int(slot), 0.0), 1) for slot in seen.slots],
    }


def _rounded(values: Floats) -> list[float | None]:
    is_known = np.isfinite(values)
    return [value if known else None for value, known in zip(np.round(values, 3).tolist(), is_known, strict=True)]
