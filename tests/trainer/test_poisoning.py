"""Wrong rows among clean ones: how far they move predictions, and that genuine changes are learnt nevertheless."""

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from lab.bench.trainer.law import make_entries
from lab.bench.trainer.poisoning import SETTINGS, TrainerInMemory, measure
from lab.bench.trainer.wrong_rows import ATTACKS, law_samples
from model_store import ROW_NAMES
from trainer.places import representative
from trainer.plausible import Limits, judge, limits_of
from trainer.wire import Matrix, Samples, decode_batch

# Predictions are compared at the 99th percentile of situations, with the range of what clean models predict.
WORST_RATIO = 1.25
TOKENS = ROW_NAMES.index("input_token_length")
TPOT, PREFILL = ROW_NAMES.index("recent_tpot_ms"), ROW_NAMES.index("recent_prefill_ms_per_token")
ENDPOINTS, SLOWER = 4, 3.0


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["1.5 times", "one region"])
def test_a_fifth_of_wrong_rows_hardly_moves_predictions(attack: str) -> None:
    found = measure(ATTACKS[attack], 0.2)
    assert found.during <= WORST_RATIO
    assert found.after <= WORST_RATIO


@pytest.mark.slow
def test_wrong_rows_near_the_median_hardly_move_the_first_model() -> None:
    found = measure(ATTACKS["1.5 times"], 0.2, from_start=True)
    assert found.during <= WORST_RATIO
    assert found.after <= WORST_RATIO


@pytest.mark.slow
def test_a_trainer_without_a_model_learns_from_rows_with_bursts_of_wrong_ones() -> None:
    found = measure(ATTACKS["an hour"], 0.2, from_start=True, in_bursts=True)
    assert found.during <= WORST_RATIO
    assert found.after <= WORST_RATIO


@pytest.mark.slow
def test_a_model_server_that_lies_hardly_moves_predictions_for_others() -> None:
    found = measure(ATTACKS["one endpoint"], 0.2)
    assert found.during <= WORST_RATIO
    assert found.after <= WORST_RATIO


@pytest.mark.slow
def test_wrong_rows_at_one_place_hardly_move_the_first_model() -> None:
    found = measure(ATTACKS["one place"], 0.2, from_start=True)
    assert found.during <= WORST_RATIO
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


def believe(residuals: NDArray[np.floating[Any]], allowance: float = 1.0) -> Matrix:
    """Return the weights of rows with equal medians."""
    return judge(residuals.astype(np.float32), np.zeros(len(residuals), dtype=np.float32), Limits(allowance)).weights


def test_clean_rows_are_all_believed() -> None:
    rng = np.random.default_rng(0)
    for spread in (0.02, 0.1, 0.4):
        assert (believe(rng.normal(0, spread, 2000)) == 1).all()
    heavy_tailed = (0.1 * rng.standard_t(3, 2000)).astype(np.float32)
    assert (believe(heavy_tailed) == 1).mean() > 0.99


@pytest.mark.parametrize("distance", [0.7, 3.0, 20.0, -0.7, -20.0])
def test_too_many_rows_far_from_the_median_are_not_believed(distance: float) -> None:
    residuals = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    residuals[:200] += np.float32(distance)
    weights = believe(residuals)
    assert (weights[:200] < 0.5).mean() > 0.9
    assert (weights[200:] == 1).mean() > 0.95
    assert (believe(residuals, allowance=1e9) == 1).mean() > 0.79


def test_rows_above_the_median_are_measured_by_the_spread_below_it() -> None:
    residuals = np.random.default_rng(0).normal(0, 0.12, 1000)
    residuals[:200] += np.log(1.5)
    weights = believe(residuals)
    assert (weights[:200] < 0.5).mean() > 0.9
    assert (weights[200:] == 1).mean() > 0.95


def test_rows_that_are_believed_but_might_be_wrong_count_with_shorter_latencies() -> None:
    residuals = np.random.default_rng(0).normal(0, 0.12, 1000).astype(np.float32)
    residuals[:120] += np.float32(np.log(1.5))
    medians = np.zeros_like(residuals)
    assert (judge(residuals, medians, limits_of("tpot")).residuals == residuals).all()
    found = judge(residuals, medians, limits_of("ttft"))
    assert (found.weights == 1).all()
    assert np.exp(found.residuals.max()) < 1.3
    assert (found.residuals[120:] == residuals[120:]).mean() > 0.97
    assert (found.residuals[residuals < 0.2] == residuals[residuals < 0.2]).all()


def test_new_wrong_rows_are_not_hidden_by_older_clean_ones() -> None:
    residuals = np.random.default_rng(0).normal(0, 0.1, 5000)
    residuals[-200:] += np.log(1.7)
    assert (believe(residuals)[-200:] < 0.5).mean() > 0.9


def test_a_system_that_becomes_a_little_slower_is_believed() -> None:
    residuals = np.random.default_rng(0).normal(0, 0.02, 2000)
    residuals[-300:] += np.log(1.15)
    assert (believe(residuals) == 1).all()


def test_distances_are_measured_by_the_spread_of_rows_with_similar_medians() -> None:
    medians = np.repeat(np.arange(4, dtype=np.float32), 250)
    residuals = np.random.default_rng(0).normal(0, np.where(medians == 0, 0.4, 0.06)).astype(np.float32)
    residuals[medians > 0] += np.where(np.arange(750) % 4 == 0, np.float32(0.5), np.float32(0))
    weights = judge(residuals, medians, Limits()).weights
    assert (weights[(medians > 0) & (residuals > 0.4)] < 0.5).all()
    assert (weights[(medians == 0) & (residuals < 0.5)] == 1).all()


def test_rows_of_one_place_are_few_of_the_judges() -> None:
    clean, wrong = law_samples(3000, 0).features, law_samples(1, 1).features.repeat(250, axis=0)
    similar = wrong.copy()
    similar[:, TOKENS] += np.arange(250)
    for attack, most in ((wrong, 5), (similar, 30)):
        rows = np.concatenate([clean, attack])
        judges = representative(rows)
        assert judges[:3000].mean() > 0.98
        assert judges[3000:].sum() <= most


def test_all_rows_judge_when_the_load_becomes_another_one() -> None:
    rows = np.concatenate([law_samples(3000, 0).features, law_samples(1, 1).features.repeat(2000, axis=0)])
    assert representative(rows[3000:]).all()
    rows[3000:, TOKENS] += np.arange(2000)
    assert representative(rows)[3000:].mean() > 0.7
    assert not len(representative(rows[:0]))


def test_no_rows_are_believed_without_an_error() -> None:
    assert len(believe(np.empty(0))) == 0
