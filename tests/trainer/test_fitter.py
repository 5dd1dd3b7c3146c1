import os
import signal

import msgspec
import numpy as np
import psutil
import pytest

from model_store import ROW_NAMES as ROW
from model_store import SCHEMAS
from tests.live import until
from tests.trainer.rows import INPUT, PREFIX, law, make_rows, rows_of, target
from trainer.exceptions import FitError
from trainer.fitter import Fitter
from trainer.fitting_process import FittingProcess
from trainer.graph import Graph
from trainer.job import Job
from trainer.settings import MODEL_TYPES, FitSettings, JobSettings
from trainer.window import TargetData

SETTINGS = JobSettings(FitSettings(quantiles=(0.9, 0.5), trees=30), trainer_id="t")
JOB = Job({"ttft": target(count=500), "tpot": target(count=500)}, SETTINGS)


def test_the_process_returns_the_fitters_models() -> None:
    process = FittingProcess()
    try:
        for theirs, ours in zip(process.learn(JOB), Fitter().learn(JOB), strict=True):
            times = {"fit_s": 0.0, "export_s": 0.0, "gate_s": 0.0}
            manifest = msgspec.structs.replace(ours.manifest, trained_at=theirs.manifest.trained_at)
            ours, theirs = (msgspec.structs.replace(learnt, **times) for learnt in (ours, theirs))
            rows = make_rows(200)
            expected, answers = (Graph(learnt.onnx).predict(ROW, rows) for learnt in (ours, theirs))
            np.testing.assert_array_equal(answers, expected)
            assert msgspec.structs.replace(ours, manifest=manifest, onnx=b"") == msgspec.structs.replace(
                theirs, onnx=b""
            )
    finally:
        process.stop()


def test_a_killed_process_fails_one_pass_and_is_restarted() -> None:
    others = set(psutil.Process().children())
    process = FittingProcess()
    try:
        process.learn(JOB)
        (child,) = set(psutil.Process().children()) - others
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(FitError, match="ended by signal 9"):
            process.learn(JOB)
        assert len(process.learn(JOB)) == 2
    finally:
        process.stop()
    until(lambda: set(psutil.Process().children()) <= others)


def test_an_unexpected_error_is_reported_and_the_process_survives() -> None:
    process = FittingProcess()
    nothing = np.empty((0, make_rows(1).shape[1]), dtype=np.float32)
    empty = rows_of(nothing, law(nothing))
    try:
        with pytest.raises(FitError):
            process.learn(Job({"ttft": TargetData(empty, empty)}, SETTINGS))
        assert len(process.learn(JOB)) == 2
    finally:
        process.stop()


def test_a_fit_without_time_extends_the_previous_one_up_to_the_tree_limit() -> None:
    fitter = Fitter()
    hurried = msgspec.structs.replace(SETTINGS, budget_s=0.0)
    passes = [fitter.learn(Job({"ttft": target()}, hurried))[0] for _ in range(9)]
    assert [learnt.incremental for learnt in passes] == [False, *[True] * 6, False, True]
    assert [learnt.trees for learnt in passes] == [30, 35, 40, 45, 50, 55, 60, 30, 35]
    assert all(not learnt.refusal for learnt in passes)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_kind_of_model_passes_the_gate(model_type: str) -> None:
    settings = msgspec.structs.replace(SETTINGS, fit=FitSettings(model_type, (0.9, 0.5)))
    (learnt,) = Fitter().learn(Job({"ttft": target()}, settings))
    assert not learnt.refusal
    assert [output.name for output in learnt.manifest.outputs] == ["ttft_ms", "ttft_p50_ms"]
    assert learnt.manifest.model_type == model_type
    assert learnt.importances
    assert (learnt.intercept is not None) == (model_type == "bayesian_ridge")
    assert learnt.manifest.holdout_scores["coverage_ttft_p50_ms"] > 0.2


def test_a_served_model_of_an_earlier_schema_is_judged_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job({"ttft": target(count=1000)}, SETTINGS)
    with monkeypatch.context() as earlier:
        earlier.setitem(SCHEMAS, "ttft", tuple(one for one in SCHEMAS["ttft"] if one.name != "ms_since_token"))
        (before,) = Fitter().learn(job)
    (after,) = Fitter().learn(Job(job.data, SETTINGS, {"ttft": before.onnx}))
    assert not after.refusal
    new = {one.name for one in after.manifest.inputs} - {one.name for one in before.manifest.inputs}
    assert new == {"ms_since_token"}


def test_weighting_by_prefix_makes_rare_prefixes_count_as_much_as_common_ones() -> None:
    x = make_rows(4000)
    x[:, PREFIX] = np.where(np.arange(4000) < 3900, 0.1, 0.9)
    x[:, INPUT] = 100
    y = np.where(x[:, PREFIX] > 0.5, 100, 1000).astype(np.float32)
    noise = np.random.default_rng(0).random(4000) < 0.3
    y[noise] = 1000
    data = TargetData(rows_of(x, y), rows_of(x[:50], y[:50]))
    shallow = FitSettings(quantiles=(), trees=1, depth=1, learning_rate=0.9)
    means = []
    for weigh in (False, True):
        settings = msgspec.structs.replace(SETTINGS, fit=shallow, weigh_prefixes=weigh)
        (learnt,) = Fitter().learn(Job({"ttft": data}, settings))
        means.append(float(Graph(learnt.onnx).predict(ROW, x).mean()))
    assert means[1] < means[0]
