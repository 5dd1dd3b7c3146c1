"""Trainers that are killed many times: no acknowledged sample is lost, none counts twice, no generation is torn."""

import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from model_store import Generation, StoreError, open_store
from tests.live import PATIENCE_S, call, until
from tests.predictor.models import running_predictor
from tests.predictor.test_v1 import ROW as TTFT_ROW
from tests.trainer.process import FITTERS_STAGES, TrainerProcess
from tests.trainer.test_store_failures import failed_loads
from tests.trainer.test_trainer_app import entries, sample_count

# In each folder a trainer is killed once in every stage, in an order of its own, and once at any moment. The crashes
# per folder are few, so that a folder's samples stay few enough for one whole fit.
FOLDERS, AT_ONCE = 4, 2
FLAGS = ["--trees", "20", "--max-training-data-size-per-bucket", "100000", "--max-test-data-size", "100000"]
STAGES = (*FITTERS_STAGES, "ingest", "publish", "collect")
ANY = "any moment"
# A kill comes up to so long after a stage's beginning; the short stages would be over.
DELAYS_S = {"fit": 0.01, "export": 0.01, "ingest": 0.01, "publish": 0.005, "collect": 0.0}
ROWS, PAUSE_S = 5, 0.01
_QUESTIONS = {
    "ttft": TTFT_ROW,
    "tpot": {name: value for name, value in TTFT_ROW.items() if name != "prefix_cache_score"}
    | {"num_tokens_generated": 1},
}


class Client:
    """Sends batches, and repeats a batch that was not acknowledged with the same key."""

    def __init__(self) -> None:
        self.sent = 0
        self._pending: bytes | None = None

    def send(self, url: str) -> bool:
        """Send the next batch; return true if it was acknowledged. Otherwise the batch stays pending."""
        if self._pending is None:
            self._pending = msgspec.json.encode({"entries": entries(ROWS, seed=self.sent)})
        headers = {"idempotency-key": str(self.sent), "content-type": "application/json"}
        request = urllib.request.Request(f"{url}/add_training_data_bulk", self._pending, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
                assert response.status == 202
        except OSError:
            return False
        self.sent += ROWS
        self._pending = None
        return True


class Watcher:
    """Records every generation that was in force, and the generations and versions that the predictor served."""

    def __init__(self, store: Path, predictor: str) -> None:
        self._store, self._predictor = open_store(str(store)), predictor
        self.published: dict[int, Generation] = {}
        self.served: dict[str, set[tuple[int, int]]] = {"ttft": set(), "tpot": set()}
        self.errors: list[str] = []

    def look(self) -> None:
        try:
            current = self._store.current()
        except StoreError as error:
            self.errors.append(str(error))
            return
        if current is not None:
            self.published[current.generation] = current
        for model, seen in self.served.items():
            status, answer = call(f"{self._predictor}/v1/{model}", _QUESTIONS[model])
            if status == 200:
                seen.add((answer["generation"], answer["model_version"]))
            # 503 or 404: nothing is published yet, or only the other target had enough samples.
            elif status not in (503, 404):
                self.errors.append(str(answer))

    def check(self) -> int:
        """Compare the served generations with the published ones; return how many could be compared."""
        known = 0
        assert not self.errors, self.errors[:3]
        for model, seen in self.served.items():
            for number, version in seen:
                if number in self.published:
                    known += 1
                    assert self.published[number].models[model].version == version, "a mixed generation was served"
        return known


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.02):
            watcher.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def crash_once(folder: Path, client: Client, rng: random.Random, aim: str) -> str:
    """Start a trainer on the last one's data and kill it in the stage `aim`. Return the stage in which that was done.

    On a busy machine the kill may take effect a moment later, when a short stage is over.
    """
    trainer = TrainerProcess(folder, *FLAGS)
    try:
        trainer.wait_until_alive()
        # The batch that was under way at the kill may have been accepted or not.
        assert sample_count(trainer.url) in (client.sent, client.sent + ROWS), "samples were lost or doubled"
        until(lambda: client.send(trainer.url))
        assert sample_count(trainer.url) == client.sent, "a batch was counted twice"
        if aim == ANY:
            _feed(client, trainer, rng.uniform(0, 2.0))
        else:
            trainer.on_stage = _killer(trainer, aim, rng.randint(1, 3), rng.uniform(0, DELAYS_S[aim]))
            _feed(client, trainer, PATIENCE_S)
        stage = aim if trainer.is_killed else trainer.stage
    finally:
        trainer.kill()
    return stage


def _killer(trainer: TrainerProcess, aim: str, times: int, delay_s: float) -> Callable[[str], None]:
    """Kills the trainer so long after it has been in a stage so often."""

    def on_stage(stage: str) -> None:
        if stage == aim and trainer.stages[stage] == times:
            time.sleep(delay_s)
            trainer.send_kill()

    return on_stage


def _feed(client: Client, trainer: TrainerProcess, seconds: float) -> None:
    """Send batches while the trainer runs, at a pace that leaves the window small enough for one whole fit."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and trainer.is_running:
        client.send(trainer.url)
        time.sleep(PAUSE_S)


def crash_again_and_again(folder: Path, seed: int) -> tuple[Counter[str], int]:
    rng, client, stages = random.Random(seed), Client(), Counter[str]()
    store = folder / "store"
    with running_predictor(store) as predictor:
        watcher = Watcher(store, predictor)
        with watching(watcher):
            for aim in rng.sample((*STAGES, ANY), len(STAGES) + 1):
                stages[crash_once(folder, client, rng, aim)] += 1
                _read_all(store)
        compared = watcher.check()
        assert failed_loads(predictor) == 0
    return stages, compared


def _read_all(store: Path) -> None:
    opened = open_store(str(store))
    for number in opened.generations():
        generation = opened.generation(number)
        for model in generation.models:
            opened.read(generation, model)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_at_any_moment_loses_no_sample_and_tears_no_generation(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(FOLDERS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [pool.submit(crash_again_and_again, folder, seed) for seed, folder in enumerate(folders)]
        results = [run.result() for run in runs]
    stages = sum((stages for stages, _ in results), Counter[str]())
    assert stages.total() == FOLDERS * (len(STAGES) + 1)
    assert set(STAGES) <= set(stages), f"a stage was never hit: {stages}"
    assert sum(compared for _, compared in results) > FOLDERS
