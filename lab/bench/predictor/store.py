"""Two generations of latency models as the trainer makes them, published in turn."""

from pathlib import Path

from lab.bench.trainer.simulated import simulated_samples
from model_store import Draft, ModelStore, open_store
from trainer.fitter import Fitter
from trainer.job import Job
from trainer.settings import FitSettings, JobSettings


class Generations:
    """A store whose newest generation can be replaced any number of times, at only the cost of writing files."""

    def __init__(self, folder: Path, trees: int, depth: int) -> None:
        samples = simulated_samples(4.0, seed=1)
        sizes = (FitSettings(trees=number, depth=depth) for number in (trees, trees - 1))
        self._drafts = [_learn(Job(samples, JobSettings(settings, "bench"))) for settings in sizes]
        self._store: ModelStore = open_store(str(folder))
        self._published = 0
        self.publish()

    @property
    def location(self) -> str:
        return self._store.location

    @property
    def graphs(self) -> list[bytes]:
        return [draft.onnx for draft in self._drafts[0]]

    def publish(self) -> int:
        """Publish the other generation, and return its number."""
        generation = self._store.publish(self._drafts[self._published % 2])
        self._published += 1
        self._store.collect()
        return generation.generation


def _learn(job: Job) -> list[Draft]:
    return [Draft(learnt.manifest, learnt.onnx) for learnt in Fitter().learn(job)]
