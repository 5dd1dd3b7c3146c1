import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import ROW_NAMES
from tests.trainer.rows import INPUT, PREFIX, law, make_rows, noisy, rows_of
from trainer.drift import find_drift, weights
from trainer.fitter import Fitter
from trainer.graph import Graph
from trainer.job import FittedModel, Job
from trainer.settings import FitSettings, JobSettings
from trainer.window import Rows, TargetData

SETTINGS = JobSettings(FitSettings(quantiles=(0.5,)), trainer_id="t")


def changing(before: int, after: int, factor: float, seed: int = 0) -> Rows:
    x = make_rows(before + after, seed)
    y = noisy(law(x), seed)
    y[before:] *= factor
    return rows_of(x, y)


def learn(rows: Rows, served: dict[str, bytes], began_at: int = 0) -> FittedModel:
    data = TargetData(*(rows.part(slice(i, None, 2)) for i in range(2)))
    (learnt,) = Fitter().learn(Job({"ttft": data}, SETTINGS, served, {"ttft": began_at}))
    return learnt


@settings(max_examples=30)
@given(
    before=st.integers(200, 1500),
    after=st.integers(30, 400),
    factor=st.sampled_from([0.5, 0.7, 1.4, 2.0, 5.0]),
    seed=st.integers(0, 1000),
)
def test_a_change_is_found_at_its_row(before: int, after: int, factor: float, seed: int) -> None:
    rows = changing(before, after, factor, seed)
    drift = find_drift(rows, law(rows.x))
    assert drift
    assert drift.is_change(0.2)
    assert abs(drift.began_at - before) <= 5
    assert abs(np.log(drift.factor / factor)) < 0.15


@given(st.integers(0, 1000), st.sampled_from([0, 1]))
@settings(max_examples=30)
def test_noise_is_not_a_change(seed: int, after: int) -> None:
    rows = changing(2000, after, 3.0, seed)
    drift = find_drift(rows, law(rows.x))
    assert drift
    assert not drift.is_change(0.2)


def test_a_change_within_the_tolerance_is_ignored() -> None:
    rows = changing(1000, 1000, 1.1)
    drift = find_drift(rows, law(rows.x))
    assert drift
    assert drift.score > 8
    assert not drift.is_change(0.2)


def test_too_few_rows_give_no_result() -> None:
    rows = changing(50, 50, 3.0)
    assert find_drift(rows, law(rows.x)) is None


def test_all_old_rows_together_weigh_a_tenth_of_the_new_ones() -> None:
    found = weights(rows_of(make_rows(1000), law(make_rows(1000))), began_at=900)
    assert abs(found[:900].sum() / found[900:].sum() - 0.1) < 1e-4
    assert (found[900:] == 1).all()


def test_a_changed_law_is_learnt_from_few_rows_and_passes_the_gate() -> None:
    old = learn(changing(4000, 0, 1.0), {})
    assert old.law_began_at is None
    changed = changing(4000, 300, 2.0)
    new = learn(changed, {"ttft": old.onnx})
    assert new.law_began_at
    assert abs(new.law_began_at - 4000) <= 5
    assert not new.refusal
    probe = make_rows(500, seed=5)
    factor = np.median(Graph(new.onnx).predict(ROW_NAMES, probe) / law(probe))
    assert 1.6 < factor < 2.4


def test_a_known_change_of_the_law_is_not_found_again() -> None:
    old = learn(changing(4000, 0, 1.0), {})
    changed = changing(4000, 300, 2.0)
    first = learn(changed, {"ttft": old.onnx})
    assert first.law_began_at
    assert learn(changed, {"ttft": first.onnx}, first.law_began_at).law_began_at == first.law_began_at


def test_a_new_situation_is_not_a_change_of_the_law() -> None:
    known = 2000
    x = make_rows(known + 300)
    x[:known, INPUT] %= 300
    x[known:, INPUT] = 700 + x[known:, INPUT] % 300
    x[known:, PREFIX] = 0
    # A trend foresees longer prompts, but no prompts that take twice as long as their length says.
    y = noisy(law(x))
    y[known:] *= 2
    rows = rows_of(x, y)
    served = learn(rows.part(slice(known)), {}).onnx
    drift = find_drift(rows, Graph(served).predict(ROW_NAMES, rows.x))
    # Against the served model, the new situation looks like a change.
    assert drift
    assert drift.is_change(SETTINGS.drift_tolerance)
    assert learn(rows, {"ttft": served}).law_began_at is None
