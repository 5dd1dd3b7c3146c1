import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model_store import open_store
from tests.live import PATIENCE_S
from tests.trainer.rows import law, make_rows, noisy, rows_of, target
from trainer.canary import Canary
from trainer.fitter import Fitter
from trainer.job import FittedModel, Job
from trainer.metrics import Metrics
from trainer.retraining import Retraining
from trainer.settings import FitSettings, JobSettings
from trainer.training_pass import PassSettings
from trainer.window import Rows, Window
from trainer.wire import Samples

ROLLED_BACK = b'headroom_trainer_rollbacks_total{model="ttft"} 1.0'
JOB = JobSettings(FitSettings(quantiles=(0.5,)), trainer_id="t")


def model(factor: float) -> FittedModel:
    """A model of the law's latencies times a factor."""
    (fitted,) = Fitter().learn(Job({"ttft": target(factor)}, JOB))
    return fitted


def arriving(count: int, first: int, factor: float = 1.0) -> Rows:
    x = make_rows(count, seed=first)
    return rows_of(x, noisy(law(x, factor)), first=first)


@pytest.fixture(scope="module")
def models() -> dict[float, FittedModel]:
    return {factor: model(factor) for factor in (1.0, 1.5)}


def test_a_model_that_is_worse_on_rows_that_arrived_since_is_found(models: dict[float, FittedModel]) -> None:
    canary = Canary(100, 0.1)
    canary.follow({"ttft": models[1.0]}, {"ttft": 0})
    assert not canary.predecessors
    canary.follow({"ttft": models[1.5]}, {"ttft": 1000})
    assert canary.judge("ttft", arriving(99, first=1000)) == ""
    assert "its mean loss on 1" in canary.judge("ttft", arriving(150, first=1000))
    canary.put_back({"ttft": models[1.0]})
    assert not canary.predecessors


def test_a_model_that_is_better_stays_and_its_predecessor_is_forgotten(models: dict[float, FittedModel]) -> None:
    canary = Canary(100, 0.1)
    canary.follow({"ttft": models[1.0]}, {"ttft": 0})
    canary.follow({"ttft": models[1.5]}, {"ttft": 1000})
    assert canary.judge("ttft", arriving(200, first=1000, factor=1.5)) == ""
    assert not canary.predecessors


def test_later_publications_are_compared_with_the_first_predecessor(models: dict[float, FittedModel]) -> None:
    canary = Canary(100, 0.1)
    canary.follow({"ttft": models[1.0]}, {"ttft": 0})
    for arrivals in (1000, 1050):
        canary.follow({"ttft": models[1.5]}, {"ttft": arrivals})
    assert canary.predecessors["ttft"].since == 1000
    assert canary.judge("ttft", arriving(200, first=1000))


def test_rows_from_before_the_publication_do_not_judge(models: dict[float, FittedModel]) -> None:
    canary = Canary(100, 0.1)
    canary.follow({"ttft": models[1.0]}, {"ttft": 0})
    canary.follow({"ttft": models[1.5]}, {"ttft": 1000})
    assert canary.judge("ttft", arriving(500, first=0)) == ""
    canary.forget()
    assert not canary.predecessors


def test_a_predecessor_of_an_earlier_law_does_not_come_back(models: dict[float, FittedModel]) -> None:
    canary = Canary(100, 0.1)
    canary.follow({"ttft": models[1.0]}, {"ttft": 0})
    canary.follow({"ttft": models[1.5]}, {"ttft": 1000})
    assert canary.judge("ttft", arriving(500, first=1000), law_began_at=1001) == ""
    assert not canary.predecessors


def test_a_canary_without_rows_follows_nothing(models: dict[float, FittedModel]) -> None:
    canary = Canary(0, 0.1)
    for published in models.values():
        canary.follow({"ttft": published}, {"ttft": 0})
    assert not canary.predecessors


async def test_the_trainer_publishes_the_model_before_again(tmp_path: Path, models: dict[float, FittedModel]) -> None:
    answers = [models[1.0], models[1.5]]

    def learn(job: Job) -> Sequence[FittedModel]:
        return [answers.pop(0) if len(answers) > 1 else answers[0]]

    window, store = Window(10_000, 0.5, 1000), open_store(str(tmp_path))
    metrics = Metrics(window, JOB.fit)
    settings = PassSettings(JOB, min_samples=10, min_samples_fresh=10, keep_generations=9, canary_rows=50)
    retraining = Retraining(window, store, metrics, settings, 0.01, learn)
    running = asyncio.create_task(retraining.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            for number in range(3):
                rows = arriving(200, first=1000 * number)
                window.add(Samples(rows.x, rows.y, np.zeros_like(rows.y)))
                while (retraining.generation or 0) <= number:
                    await asyncio.sleep(0.01)
            while ROLLED_BACK not in metrics.page():
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await retraining.end()
    # Which pass the rollback follows depends on when the rows of the last one came.
    current = store.current()
    assert current
    onnx = [store.read(store.generation(number + 1), "ttft").onnx for number in range(current.generation)]
    assert onnx[:2] == [models[1.0].onnx, models[1.5].onnx]
    assert models[1.0].onnx in onnx[2:]
