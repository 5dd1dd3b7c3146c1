"""Tests of the trial that a model passes in another process before a predictor loads it."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from predictor.exceptions import ModelError
from predictor.loading import LIMITS, Source
from predictor.trial import Trials
from tests.predictor import bombs
from tests.predictor.models import draft


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    trials = Trials()
    yield trials
    trials.close()


def source(onnx: bytes) -> Source:
    return Source("ttft", 1, onnx, draft("ttft", 1.0).manifest)


def only_process(trials: Trials) -> int:
    (idle,) = trials._idle
    return idle._process.pid


def test_a_process_serves_many_trials_and_is_replaced_when_it_was_killed(trials: Trials) -> None:
    for factor in (1.0, 2.0):
        trials.check(source(draft("ttft", factor).onnx), LIMITS)
        first = only_process(trials)
    assert only_process(trials) == first
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    trials.check(source(draft("ttft", 3.0).onnx), LIMITS)
    assert only_process(trials) != first


def test_a_model_that_takes_too_much_memory_ends_its_child_alone(trials: Trials) -> None:
    with pytest.raises(ModelError, match=r"ttft/1: it takes more than \d+ MiB of memory") as refused:
        trials.check(source(bombs.doubled_columns()), LIMITS)
    assert refused.value.kind == "trial"
    trials.check(source(draft("ttft", 1.0).onnx), LIMITS)


def test_a_model_that_takes_too_much_cpu_is_refused_at_once_the_second_time(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predictor.trial._CPU_S", 1)
    busy = source(bombs.busy())
    for _ in range(2):
        with pytest.raises(ModelError, match="its trial took more than 1 s of CPU"):
            trials.check(busy, LIMITS)
        # The second time nothing is run.
        monkeypatch.setattr("predictor.trial._TrialProcess.ask", None)


def test_a_trial_that_does_not_end_is_ended_with_its_process(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predictor.trial._DEADLINE_S", 0.5)
    with pytest.raises(ModelError, match=r"its trial did not end in 0\.5 s"):
        trials.check(source(bombs.busy(1_499)), LIMITS)
    assert not trials._idle


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (bombs.huge_constant, "operators that a regressor does not need: ConstantOfShape"),
        (bombs.endless_loop, "operators that a regressor does not need: Loop"),
        (bombs.deep, "nodes, but the limit is 2000"),
    ],
)
def test_a_graph_that_is_not_allowed_is_never_run(trials: Trials, bomb: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as refused:
        trials.check(source(bomb()), LIMITS)
    assert refused.value.kind == "graph"
