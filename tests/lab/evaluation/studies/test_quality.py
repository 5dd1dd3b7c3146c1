import numpy as np
import pytest

from lab.evaluation.studies.contenders import CONTENDERS
from lab.evaluation.studies.noise_floor import Floor, floor_of_neighbours, floor_of_repeats
from lab.evaluation.studies.quality import Quality, TargetQuality, judge, table
from model_store import ROW_NAMES
from tests.trainer.rows import law, make_rows
from trainer.wire import Matrix

SIGMA = 0.1
# The median error and the pinball loss of a Gaussian of that width.
MDAPE, PINBALL = 0.0674, 0.01755
AHEAD = ROW_NAMES.index("prefill_tokens_in_flight")


def made(count: int, seed: int = 0) -> tuple[Matrix, Matrix]:
    """Return rows whose latency depends on noise and on two features that the reference doesn't have."""
    x = make_rows(count, seed)
    noise = np.random.default_rng(seed).normal(0, SIGMA, count)
    return x, ((law(x) + x[:, AHEAD]) * np.exp(noise)).astype(np.float32)


def by_name(found: TargetQuality) -> dict[str, Quality]:
    return {one.model: one for one in found.models}


def near(floor: Floor | None, share: float) -> bool:
    assert floor
    assert floor.sigma == pytest.approx(SIGMA, rel=share)
    assert floor.pinball == pytest.approx(PINBALL, rel=share)
    return floor.mdape == pytest.approx(MDAPE, rel=share)


def test_our_models_lie_between_the_floor_and_the_reference() -> None:
    found = judge("ttft", *made(5000))
    models = by_name(found)
    assert set(models) == set(CONTENDERS)
    assert found.floor
    assert (found.fitted_rows, found.judged_rows) == (3500, 1500)
    assert 0.8 * MDAPE < found.floor.mdape < models["ours"].mdape < models["reference"].mdape
    assert found.floor.pinball < models["ours"].pinball < models["reference"].pinball
    assert all(0.7 < model.coverage < 1 for model in models.values())


def test_repeats_estimate_the_noise() -> None:
    rng = np.random.default_rng(0)
    means = rng.uniform(10, 1000, 500)
    groups = [(mean * np.exp(rng.normal(0, SIGMA, 8))).astype(np.float32) for mean in means]
    assert near(floor_of_repeats(groups), 0.08)
    assert floor_of_repeats([groups[0][:1], groups[1]]) is None


def test_neighbours_estimate_the_noise_if_rows_are_dense() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (3000, 2)).astype(np.float32)
    x[rng.random(3000) < 0.2, 1] = np.nan
    noise = rng.normal(0, SIGMA, 3000).astype(np.float32)
    residuals = np.asarray(noise + 0.3 * np.sin(3 * x[:, 0]), dtype=np.float32)
    assert near(floor_of_neighbours(x, residuals, np.array([1.0, 0.1], dtype=np.float32)), 0.15)


def test_a_state_shared_by_neighbours_in_time_counts_as_noise() -> None:
    """Rows that came together share a state that no feature shows."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.uniform(0, 1, (100, 1)), 30, axis=0).astype(np.float32)
    shared = np.repeat(rng.normal(0, SIGMA, 100), 30).astype(np.float32)
    one = np.ones(1, dtype=np.float32)
    together, apart = (floor_of_neighbours(x, shared, one, apart=rows) for rows in (1, 50))
    assert together
    assert apart
    assert together.sigma < 0.2 * apart.sigma
    assert apart.sigma == pytest.approx(SIGMA, rel=0.3)
    assert floor_of_neighbours(x[:90], shared[:90], one) is None


def test_a_given_floor_is_used() -> None:
    known = Floor("repeats", 0.01, 0.001, 0.02, 100)
    assert judge("tpot", *made(400), floor=known, contenders={"ours": CONTENDERS["ours"]}).floor == known


def test_the_table_has_a_line_for_each_model_and_the_floor() -> None:
    text = table([judge("ttft", *made(600)), judge("tpot", *made(600))])
    for words in ("TTFT: fitted to 420 rows", "TPOT", *CONTENDERS, "noise floor (neighbours 50 rows apart)"):
        assert words in text


def test_bad_rows_are_refused() -> None:
    rows, y_ms = made(300)
    with pytest.raises(ValueError, match="ttft: 300 rows and 299 latencies"):
        judge("ttft", rows, y_ms[1:])
    with pytest.raises(ValueError, match="not above 0"):
        judge("ttft", rows, y_ms * 0)
