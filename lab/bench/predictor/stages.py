"""The share of each stage in the time of a predictor's bulk requests."""

import time
from collections.abc import Callable

import msgspec
import numpy as np

from lab.bench.trainer.serving import ask
from model_store import row_columns
from predictor.wire import BulkRequest

# The predictor's names of the counted stages.
_COUNTED = {"input": "compute_input", "run": "compute_infer", "serialise": "compute_output"}
_TIMES = 200


def counted_ns(url: str) -> dict[str, int]:
    """Return the nanoseconds that all requests so far have spent in each counted stage."""
    models = ask(f"{url}/v2/models/stats")[1]["model_stats"]
    spent = {stage: sum(model["inference_stats"][name]["ns"] for model in models) for stage, name in _COUNTED.items()}
    # Only the first model counts the parsing of a request, but each model counts the writing of the one answer.
    spent["serialise"] //= len(models)
    return spent


def shares(before: dict[str, int], after: dict[str, int], body: bytes) -> dict[str, float]:
    """Return the shares of parse, tensor, run and serialise in the time spent between `before` and `after`.

    The predictor counts parsing and filling the tensor as one stage. Timing both here, on `body`, separates them.
    """
    spent = {stage: ns - before[stage] for stage, ns in after.items()}
    total = sum(spent.values())
    decoder = msgspec.json.Decoder(BulkRequest)
    rows = decoder.decode(body).requests
    parse_s, tensor_s = _median_s(lambda: decoder.decode(body)), _median_s(lambda: row_columns(rows))
    parse = parse_s / (parse_s + tensor_s)
    return {
        "parse": parse * spent["input"] / total,
        "tensor": (1 - parse) * spent["input"] / total,
        "run": spent["run"] / total,
        "serialise": spent["serialise"] / total,
    }


def _median_s(act: Callable[[], object]) -> float:
    taken = []
    for _ in range(_TIMES):
        began_s = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began_s)
    return float(np.median(taken))
