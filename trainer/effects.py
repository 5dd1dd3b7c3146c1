"""How much each feature changes what a model predicts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trainer.wire import Matrix

# Rows are enough for two digits, and take a hundredth of a fit's time.
_ROWS = 500
_LEAST_MS = np.float32(1e-3)


def feature_effects(predict: Callable[[Matrix], Matrix], names: Sequence[str], rows: Matrix) -> Mapping[str, float]:
    """Return each feature's effect: by what share predictions change if its values are exchanged between the rows.

    `predict` takes rows [rows, names], and returns latencies in ms [rows]. The share is the mean absolute change of the
    logarithm. It counts all that a model does with a feature, as gains of splits in trees don't.
    """
    rows = rows[-_ROWS:]
    if not len(rows):
        return {}
    before = np.log(np.maximum(predict(rows), _LEAST_MS))
    order = np.random.default_rng(0).permutation(len(rows))
    found = {}
    for place, name in enumerate(names):
        exchanged = rows.copy()
        exchanged[:, place] = rows[order, place]
        after = np.log(np.maximum(predict(exchanged), _LEAST_MS))
        found[name] = round(float(np.abs(after - before).mean()), 4)
    return found
