import asyncio
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from epp.prediction.embedded import EmbeddedLatencyClient
from epp.prediction.features import FeatureColumns
from epp.prediction.wire import TrainingBatch, training_row
from epp.scheduling.snapshot import Predictions
from lab.evaluation.replay.learning import LearningSettings, Models, Row, VirtualTrainer, samples_of
from model_store import ROW_NAMES, open_store
from tests.lab.evaluation.replay.learning_rows import candidates, learning_rows
from tests.live import call, until
from tests.trainer.test_trainer_app import running_trainer
from trainer.fitter import Fitter
from trainer.settings import FitSettings, JobSettings
from trainer.training_pass import PassSettings, run_pass
from trainer.window import Window
from trainer.wire import decode_batch

FIT = FitSettings(quantiles=(0.5, 0.9), depth=5)
SETTINGS = LearningSettings(JobSettings(FIT, trainer_id="t"), interval_s=5.0, delay_s=2.0)


def taught(rows: list[Row], settings: LearningSettings = SETTINGS, models: Models | None = None) -> VirtualTrainer:
    trainer = VirtualTrainer(settings, models)
    for row in rows:
        trainer.add(*row)
    return trainer


def body(rows: list[Row]) -> bytes:
    return msgspec.json.encode(TrainingBatch([training_row(x, ttft_ms=a, tpot_ms=b) for x, a, b in rows]))


async def embedded(store: Path, columns: FeatureColumns) -> Predictions:
    client = EmbeddedLatencyClient(str(store), sync_interval_s=60)
    await client.start()
    predictions = client.predict(columns)
    await client.close()
    return predictions


def test_rows_become_the_samples_that_the_trainer_reads_from_json() -> None:
    rows = learning_rows(200)
    rows[0][0][ROW_NAMES.index("input_token_length")] = 17.5
    ours, theirs = samples_of(rows), decode_batch(body(rows))
    for name in ("features", "ttft_ms", "tpot_ms"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.slow
def test_models_equal_those_of_the_training_server(tmp_path: Path) -> None:
    rows = learning_rows(1500)
    with running_trainer(tmp_path, min_samples=800) as url:
        assert call(f"{url}/add_training_data_bulk", msgspec.json.decode(body(rows)))[0] == 202
        until(lambda: call(f"{url}/data/status")[1]["generation"] == 1)
    theirs = asyncio.run(embedded(tmp_path, candidates(8)))
    trainer = taught(rows)
    assert trainer.refit_if_due(0.0)
    ours = trainer.predict(candidates(8), 2.0)
    assert ours
    np.testing.assert_array_equal(ours.ttft_ms, theirs.ttft_ms)
    np.testing.assert_array_equal(ours.tpot_ms, theirs.tpot_ms)


@pytest.mark.slow
def test_passes_equal_those_of_the_trainer_with_a_store(tmp_path: Path) -> None:
    """Latencies double between passes, so older rows are discounted and then dropped."""
    window, store, fitter = Window(5000, 0.1, 1000), open_store(str(tmp_path)), Fitter()
    settings = PassSettings(SETTINGS.job, 100, 100, 3)
    trainer, state = VirtualTrainer(SETTINGS), SimpleNamespace(served={}, laws={})
    for turn in range(4):
        rows = learning_rows(700, seed=turn, factor=2.0 if turn > 1 else 1.0)
        for row in rows:
            trainer.add(*row)
        assert trainer.refit_if_due(10.0 * turn)
        window.add(decode_batch(body(rows)))
        for name, began_at in state.laws.items():
            window.targets[name].forget_replaced(began_at)
        data = {name: asyncio.run(target.data()) for name, target in window.targets.items()}
        result = run_pass(data, state.served, state.laws, store, settings, fitter.learn)
        state.laws |= {name: one.law_began_at for name, one in result.fitted.items() if one.law_began_at}
        state.served |= {name: one.onnx for name, one in result.published.items()}
        assert trainer.passes[-1].refusals == {name: one.refusal for name, one in result.fitted.items() if one.refusal}
    assert state.laws.keys() == {"ttft", "tpot"}
    ours, theirs = trainer.predict(candidates(16), 100.0), asyncio.run(embedded(tmp_path, candidates(16)))
    assert ours
    np.testing.assert_array_equal(ours.ttft_ms, theirs.ttft_ms)
    np.testing.assert_array_equal(ours.tpot_ms, theirs.tpot_ms)


def test_models_serve_after_the_delay_and_passes_keep_the_interval() -> None:
    trainer = taught(learning_rows(300))
    assert trainer.predict(candidates(3), 0.0) is None
    assert trainer.refit_if_due(1.0)
    assert trainer.predict(candidates(3), 2.9) is None
    first = trainer.predict(candidates(3), 3.0)
    assert first
    assert first.generation == 1
    for row in learning_rows(300, seed=1, factor=3.0):
        trainer.add(*row)
    assert not trainer.refit_if_due(5.9)
    assert trainer.refit_if_due(6.0)
    before, after = trainer.predict(candidates(3), 7.9), trainer.predict(candidates(3), 8.0)
    assert before
    assert after
    assert (before.generation, after.generation) == (1, 2)
    np.testing.assert_array_equal(before.ttft_ms, first.ttft_ms)
    assert (after.ttft_ms != before.ttft_ms).any()


def test_too_few_rows_make_no_models_and_no_new_rows_make_no_pass() -> None:
    trainer = taught(learning_rows(120))
    assert not trainer.refit_if_due(0.0)
    for row in learning_rows(200, seed=1):
        trainer.add(*row)
    assert not trainer.refit_if_due(4.0)
    assert trainer.refit_if_due(5.0)
    assert not trainer.refit_if_due(10.0)
    assert len(trainer.passes) == 1


def test_all_quantiles_are_predicted_in_rising_order() -> None:
    trainer = taught(learning_rows(900))
    trainer.refit_if_due(0.0)
    answers, first = trainer.predict_all(candidates(16), 2.0), trainer.predict(candidates(16), 2.0)
    assert answers
    assert first
    for outputs, one in zip(answers, (first.ttft_ms, first.tpot_ms), strict=True):
        assert outputs.shape == (2, 16)
        assert (outputs[0] <= outputs[1]).all()
        np.testing.assert_array_equal(outputs[0], one)


def test_another_run_starts_from_a_runs_models_and_rows() -> None:
    trainer = taught(learning_rows(900))
    trainer.refit_if_due(0.0)
    models = msgspec.msgpack.decode(msgspec.msgpack.encode(trainer.models()), type=Models)
    again = VirtualTrainer(SETTINGS, models)
    first, second = trainer.predict(candidates(8), 2.0), again.predict(candidates(8), 0.0)
    assert first
    assert second
    assert second.generation == 1
    np.testing.assert_array_equal(first.ttft_ms, second.ttft_ms)
    for row in learning_rows(100, seed=1):
        again.add(*row)
    assert again.refit_if_due(0.0)
    assert again.passes[0].rows["ttft"] > trainer.passes[0].rows["ttft"]


@pytest.mark.parametrize(
    ("name", "value"), [("kv_cache_percentage", 1.5), ("num_request_waiting", -1.0), ("input_token_length", np.nan)]
)
def test_an_error_names_a_value_that_the_trainer_would_refuse(name: str, value: float) -> None:
    rows = learning_rows(3)
    rows[1][0][ROW_NAMES.index(name)] = value
    with pytest.raises(ValueError, match=f"row 1: {name} can't be"):
        samples_of(rows)
    with pytest.raises(ValueError, match="a latency is negative"):
        samples_of([(learning_rows(1)[0][0], -1.0, 0.0)])


def test_a_failed_fit_raises() -> None:
    trainer = taught(learning_rows(300), LearningSettings(JobSettings(FitSettings(quantiles=(2.0,)), trainer_id="t")))
    with pytest.raises(Exception, match="quantile"):
        trainer.refit_if_due(0.0)
