from collections.abc import Sequence

import numpy as np

from trainer.gate import check_not_worse, check_rising, scores
from trainer.wire import Matrix


def test_a_model_that_predicts_less_latency_for_a_longer_queue_is_refused() -> None:
    names = ("num_request_waiting", "input_token_length")
    rows = np.random.default_rng(2).integers(0, 100, (200, 2)).astype(np.float32)

    def wrong(names: Sequence[str], rows: Matrix) -> Matrix:
        return np.asarray(1000 - 8 * rows[:, names.index("num_request_waiting")], dtype=np.float32)

    verdict = check_rising(wrong, names, rows, names)
    assert verdict.failed == "falling"
    assert "more num_request_waiting predicts" in verdict.reason
    assert check_rising(wrong, names, rows, ("input_token_length",)).passed


def test_noise_does_not_make_a_model_worse() -> None:
    rng = np.random.default_rng(1)
    served = rng.random(200).astype(np.float32)
    assert check_not_worse(served + rng.normal(0, 0.3, 200).astype(np.float32), served, 0.1).passed
    assert check_not_worse(served * 2, served, 0.1).failed == "worse"
    assert check_not_worse(served[:5] * 2, served[:5], 0.1).passed


def test_scores_of_a_quantile_include_its_coverage() -> None:
    actual = np.arange(1, 101, dtype=np.float32)
    found = scores(np.full(100, 90, dtype=np.float32), actual, 0.9)
    assert found["coverage"] == 0.9
    assert "coverage" not in scores(actual, actual, None)
    assert scores(actual[:0], actual[:0], 0.9) == {}
