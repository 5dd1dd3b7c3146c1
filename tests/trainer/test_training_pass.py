from pathlib import Path

import numpy as np

from model_store import ROW_NAMES, open_store
from tests.trainer.rows import WAITING, law, make_rows, rows_of, target
from trainer.derivation import RISING
from trainer.exceptions import FitError
from trainer.fitter import Fitter
from trainer.gate import check_rising
from trainer.graph import Graph
from trainer.job import FittedModel, Job
from trainer.settings import FitSettings, JobSettings
from trainer.training_pass import PassSettings, run_pass
from trainer.window import TargetData

SETTINGS = PassSettings(
    JobSettings(FitSettings(quantiles=(0.5,)), trainer_id="t"), min_samples=50, min_samples_fresh=20, keep_generations=3
)


def test_a_pass_publishes_accurate_models(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    result = run_pass({"ttft": target(), "tpot": target()}, {}, {}, store, SETTINGS, Fitter().learn)
    generation = store.current()
    assert generation
    assert (result.outcome, result.generation) == ("published", generation)
    stored = store.read(generation, "ttft")
    fresh = make_rows(300, seed=9)
    error = np.abs(Graph(stored.onnx).predict(ROW_NAMES, fresh) / law(fresh) - 1)
    assert np.median(error) < 0.1
    assert stored.manifest.holdout_scores["mdape"] < 0.1
    assert (stored.manifest.train_samples, stored.manifest.holdout_samples) == (3000, 400)


def test_too_few_samples_publish_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    result = run_pass({"ttft": target(count=19)}, {}, {}, store, SETTINGS, Fitter().learn)
    assert (result.outcome, result.generation) == ("too_few_samples", None)
    assert "20 samples are needed; there are: ttft 19" in result.reason
    assert store.current() is None


def test_the_first_model_needs_fewer_samples(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    few = {"ttft": target(count=30)}
    first = run_pass(few, {}, {}, store, SETTINGS, Fitter().learn)
    assert first.outcome == "published"
    served = {"ttft": first.published["ttft"].onnx}
    assert run_pass(few, served, {}, store, SETTINGS, Fitter().learn).outcome == "too_few_samples"


def test_a_worse_model_is_refused_and_the_better_target_published(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = run_pass({"ttft": target(), "tpot": target()}, {}, {}, store, SETTINGS, Fitter().learn)
    whole = target()
    spoilt = TargetData(rows_of(whole.train.x, whole.train.y[::-1].copy()), whole.holdout)
    served = {name: learnt.onnx for name, learnt in first.published.items()}
    second = run_pass({"ttft": spoilt, "tpot": whole}, served, {}, store, SETTINGS, Fitter().learn)
    assert second.outcome == "published"
    assert "ttft: its mean loss" in second.reason
    assert second.fitted["ttft"].refused_for == "worse"
    generation = store.current()
    assert generation
    assert {name: ref.version for name, ref in generation.models.items()} == {"ttft": 1, "tpot": 2}


def test_a_store_that_can_not_be_written_fails_the_pass(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(str(tmp_path / "file"))
    result = run_pass({"ttft": target()}, {}, {}, store, SETTINGS, Fitter().learn)
    assert (result.outcome, result.failed_at) == ("failed", "lead")
    assert "file" in result.reason


def test_a_failed_fit_fails_the_pass(tmp_path: Path) -> None:
    def fail(job: Job) -> list[FittedModel]:
        raise FitError("no memory")

    result = run_pass({"ttft": target()}, {}, {}, open_store(str(tmp_path)), SETTINGS, fail)
    assert (result.outcome, result.failed_at, result.reason) == ("failed", "fit", "no memory")


def test_the_published_ttft_rises_with_the_queue_even_if_samples_fall(tmp_path: Path) -> None:
    data = target()
    upside_down = TargetData(rows_of(data.train.x, 2000 - data.train.x[:, WAITING]), data.holdout)
    result = run_pass({"ttft": upside_down}, {}, {}, open_store(str(tmp_path)), SETTINGS, Fitter().learn)
    graph = Graph(result.published["ttft"].onnx)
    assert check_rising(graph.predict, ROW_NAMES, make_rows(500), RISING["ttft"]).passed
