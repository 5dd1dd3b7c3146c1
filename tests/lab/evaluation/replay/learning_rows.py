"""Rows of a known law, [features, 1] each, for tests of learning in virtual time."""

import numpy as np

from epp.prediction.features import FeatureColumns
from lab.evaluation.replay.learning import Row
from tests.trainer.rows import law, make_rows, noisy


def learning_rows(count: int, seed: int = 0, factor: float = 1.0) -> list[Row]:
    """Return rows with a TTFT by the law and its noise, and a TPOT of a tenth. Every third row has only one of them."""
    x = make_rows(count, seed)
    ttft_ms = noisy(law(x, factor), seed).tolist()
    rows = []
    for index, columns in enumerate(x[:, :, None]):
        has_ttft, has_tpot = index % 3 != 1, index % 3 != 2
        rows.append((columns, ttft_ms[index] * has_ttft, ttft_ms[index] / 10 * has_tpot))
    return rows


def candidates(count: int, seed: int = 99) -> FeatureColumns:
    """Return columns [features, candidates]."""
    return np.ascontiguousarray(make_rows(count, seed).T)
