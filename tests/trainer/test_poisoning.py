"""Wrong rows among clean ones: how far they move predictions, and that genuine changes are learnt nevertheless."""

import msgspec
import numpy as np
import pytest

from lab.bench.trainer.law import make_entries
from lab.bench.trainer.poisoning import ATTACKS, SETTINGS, TrainerInMemory, law_samples, measure
from model_store import ROW_NAMES
from trainer.plausible import belief
from trainer.wire import Samples, decode_batch

# Predictions are compared at the 99th percentile of situations, with the range of what clean models predict.
WORST_RATIO = 1.3
TPOT, PREFILL = ROW_NAMES.index("recent_tpot_ms"), ROW_NAMES.index("recent_prefill_ms_per_token")
ENDPOINTS, SLOWER = 4, 3.0


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["1e12 ms", "an hour", "1 us", "random", "3 times"])
def test_a_fifth_of_wrong_rows_hardly_moves_predictions(attack: str) -> None:
    found = measure(ATTACKS[attack], 0.2)
    assert found.during <= WORST_RATIO
    assert found.after <= WORST_RATIO


@pytest.mark.slow
def test_wrong_rows_in_bursts_hardly_move_predictions() -> None:
    found = measure(ATTACKS["an hour"], 0.2, in_bursts=True)
    assert found.during <= WORST_RATIO
    assert found.after <= WORST_RATIO


@pytest.mark.slow
def test_a_trainer_without_a_model_learns_from_poisoned_rows() -> None:
    found = measure(ATTACKS["an hour"], 0.2, from_start=True)
    assert found.during <= WORST_RATIO
    assert found.after <= WORST_RATIO


@pytest.mark.slow
def test_wrong_rows_at_one_place_are_not_published() -> None:
    found = measure(ATTACKS["one place"], 0.2, from_start=True)
    assert "worse" in found.refusals
    assert found.after <= WORST_RATIO


def endpoints_rows(count: int, seed: int, slower: float) -> Samples:
    """Rows of several endpoints, of which the first takes `slower` times as long. Their recent times tell which."""
    rows = law_samples(count, seed)
    factors = np.where(np.arange(count) % ENDPOINTS == 0, np.float32(slower), np.float32(1))
    features = rows.features.copy()
    features[:, TPOT], features[:, PREFILL] = 35 * factors, 0.25 * factors
    return Samples(features, rows.ttft_ms * factors, rows.tpot_ms * factors)


def passes_to_learn(before: Samples, changed: list[Samples], allowance: float) -> int:
    """Return the number of passes until predictions are near the observed median of the changed rows."""
    trainer = TrainerInMemory(msgspec.structs.replace(SETTINGS, allowed_outliers=allowance))
    trainer.add(before)
    trainer.learn()
    for number, rows in enumerate(changed, start=1):
        trainer.add(rows)
        trainer.learn()
        probes = rows.part(np.arange(len(rows)) % ENDPOINTS == 0)
        answers = trainer.predict(probes.features)
        ratios = (answers["ttft"][:, 1] / probes.ttft_ms, answers["tpot"][:, 1] / probes.tpot_ms)
        if all(abs(np.log(np.median(ratio))) < np.log(1.2) for ratio in ratios):
            return number
    return len(changed) + 1


def test_an_endpoint_that_becomes_slower_is_learnt_as_fast_as_if_all_rows_were_believed() -> None:
    before = endpoints_rows(4000, 0, 1.0)
    changed = [endpoints_rows(100, seed, SLOWER) for seed in range(1, 7)]
    believing = passes_to_learn(before, changed, allowance=1e9)
    assert believing <= 6
    assert passes_to_learn(before, changed, allowance=1.0) <= believing


def test_a_new_kind_of_load_is_learnt_as_fast_as_if_all_rows_were_believed() -> None:
    changed = [_long_prompts(100, seed) for seed in range(1, 7)]
    believing = passes_to_learn(law_samples(4000, 0), changed, allowance=1e9)
    assert believing <= 6
    assert passes_to_learn(law_samples(4000, 0), changed, allowance=1.0) <= believing


def _long_prompts(count: int, seed: int) -> Samples:
    entries = make_entries(count, seed)
    for entry in entries:
        entry["input_token_length"] += 50_000
        entry["actual_ttft_ms"] += 0.25 * 50_000 * (1 - entry["prefix_cache_score"])
    return decode_batch(msgspec.json.encode({"entries": entries}))


def test_clean_rows_are_all_believed() -> None:
    rng = np.random.default_rng(0)
    for spread in (0.02, 0.1, 0.4):
        assert (belief(rng.normal(0, spread, 2000).astype(np.float32)) == 1).all()
    heavy_tailed = (0.1 * rng.standard_t(3, 2000)).astype(np.float32)
    assert (belief(heavy_tailed) == 1).mean() > 0.99


@pytest.mark.parametrize("distance", [0.7, 3.0, 20.0, -0.7, -20.0])
def test_too_many_rows_far_from_the_median_are_not_believed(distance: float) -> None:
    residuals = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    residuals[:200] += np.float32(distance)
    weights = belief(residuals)
    assert (weights[:200] < 0.5).mean() > 0.9
    assert (weights[200:] == 1).mean() > 0.95
    assert (belief(residuals, allowance=1e9) == 1).mean() > 0.79


def test_no_rows_are_believed_without_an_error() -> None:
    assert len(belief(np.empty(0, dtype=np.float32))) == 0
