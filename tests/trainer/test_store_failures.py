"""What becomes of a trainer and a predictor while the store between them is damaged, full, closed or away."""

import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import open_store
from tests.live import call, until
from tests.model_store.places import BucketPlace
from tests.model_store.s3_server import S3Server
from tests.predictor.models import running_predictor
from tests.predictor.test_v1 import ROW
from tests.trainer.process import TrainerProcess, started
from tests.trainer.test_trainer_app import entries, running_trainer

SEEDS = iter(range(1, 1_000_000))


def feed(url: str, count: int = 200) -> None:
    assert call(f"{url}/add_training_data_bulk", {"entries": entries(count, next(SEEDS))})[0] == 202


def fed(url: str, condition: Callable[[], bool]) -> None:
    """Waits for a condition while samples come in, which a pass needs; few enough for the journal to stay small."""
    fed_at = 0.0

    def fed_once() -> bool:
        nonlocal fed_at
        if time.monotonic() - fed_at > 0.2:
            feed(url, 5)
            fed_at = time.monotonic()
        return condition()

    until(fed_once)


def generation(url: str) -> int:
    return int(call(f"{url}/data/status")[1]["generation"] or 0)


def failures(url: str, stage: str) -> float:
    match = re.search(rf'headroom_trainer_failures_total\{{stage="{stage}"\}} (\S+)', call(f"{url}/metrics")[1])
    return float(match[1]) if match else 0.0


def serves(url: str) -> int:
    return int(call(f"{url}/v1")[1]["generation"])


def failed_loads(url: str) -> float:
    match = re.search(r'headroom_predictor_loads_total\{outcome="failed"\} (\S+)', call(f"{url}/metrics")[1])
    return float(match[1]) if match else 0.0


def test_a_disk_that_takes_no_more_keeps_the_last_generation_and_is_recovered_from(tmp_path: Path) -> None:
    with started(tmp_path, "--trees", "300") as trainer:
        feed(trainer.url)
        until(lambda: generation(trainer.url) >= 1)
        with running_predictor(tmp_path / "store") as predictor:
            # A model's file is larger; a journal of few samples and a pointer are not.
            _limit_files(trainer, 60_000)
            fed(trainer.url, lambda: failures(trainer.url, "publish") >= 2)
            assert "File too large" in call(f"{trainer.url}/data/status")[1]["last_pass"]["reason"]
            assert "pass: failed can't use model store" in trainer.log
            before = generation(trainer.url)
            until(lambda: serves(predictor) == before)
            _limit_files(trainer, resource.RLIM_INFINITY)
            fed(trainer.url, lambda: generation(trainer.url) > before)
            until(lambda: serves(predictor) > before)
    assert not list((tmp_path / "store").rglob(".partial-*")), "what was half written was not cleared away"


def _limit_files(trainer: TrainerProcess, size_bytes: int) -> None:
    _, hard = resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def test_a_read_only_store_keeps_the_last_generation_and_is_recovered_from(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with started(tmp_path, heeds_permissions=True) as trainer:
        feed(trainer.url)
        until(lambda: generation(trainer.url) >= 1)
        with running_predictor(store) as predictor:
            folders = [store, store / "ttft", store / "tpot"]
            _set_modes(folders, 0o555)
            try:
                fed(trainer.url, lambda: failures(trainer.url, "publish") >= 2)
                assert "Permission denied" in call(f"{trainer.url}/data/status")[1]["last_pass"]["reason"]
                before = generation(trainer.url)
                assert serves(predictor) == before
            finally:
                _set_modes(folders, 0o755)
            fed(trainer.url, lambda: generation(trainer.url) > before)
            until(lambda: serves(predictor) > before)
    assert trainer.log.count("Permission denied") < 5, "the same failure is told again and again"


def _set_modes(folders: list[Path], mode: int) -> None:
    for folder in folders:
        folder.chmod(mode)


def truncate(version: Path) -> None:
    model = version / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])


def flip_a_byte(version: Path) -> None:
    model = version / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)


def exchange_the_manifest(version: Path) -> None:
    manifest = version / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ttft_ms"', '"tpot_ms"'))


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, exchange_the_manifest])
def test_a_damaged_generation_is_not_served_and_replaced_by_the_next(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    location, journal = tmp_path / "store", str(tmp_path / "journal")
    with running_trainer(location, journal=journal) as url:
        feed(url)
        until(lambda: generation(url) >= 1)
    store = open_store(str(location))
    with running_predictor(location, interval_s=3600) as predictor:
        until(lambda: call(f"{predictor}/readyz")[0] == 200)
        good = serves(predictor)
        with running_trainer(location, journal=journal) as url:
            fed(url, lambda: generation(url) > good)
        current = store.current()
        assert current
        damage(location / "ttft" / str(current.models["ttft"].version))
        assert call(f"{predictor}/reload", b"")[1]["loaded"] is False
        assert serves(predictor) == good
        assert failed_loads(predictor) == 1
        assert "what is loaded keeps serving" in caplog.text
        with running_trainer(location, journal=journal) as url:
            until(lambda: failures(url, "read") == 1)
            assert "can't read the generation in force" in caplog.text
            fed(url, lambda: generation(url) > current.generation)
        assert call(f"{predictor}/reload", b"")[1]["loaded"] is True
        assert serves(predictor) > current.generation


def test_an_s3_that_is_away_keeps_the_last_generation_and_is_recovered_from(
    bucket: BucketPlace, s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    with running_trainer(bucket.location) as url, running_predictor(bucket.location) as predictor:
        feed(url)
        until(lambda: generation(url) >= 1)
        until(lambda: call(f"{predictor}/readyz")[0] == 200)
        s3.before = lambda method, path: (500, "InternalError")
        fed(url, lambda: failures(url, "lead") + failures(url, "publish") >= 1)
        before = generation(url)
        assert call(f"{predictor}/v1/ttft", ROW)[0] == 200
        until(lambda: failed_loads(predictor) >= 1)
        assert bucket.location in caplog.text
        s3.remove_hooks()
        fed(url, lambda: generation(url) > before)
        until(lambda: serves(predictor) > before)


def test_of_two_trainers_on_s3_one_publishes_and_the_other_takes_over_when_it_ends(bucket: BucketPlace) -> None:
    with running_trainer(bucket.location) as second:
        with running_trainer(bucket.location) as first:
            feed(first)
            until(lambda: call(f"{first}/readyz")[0] == 200)
            fed(second, lambda: call(f"{second}/data/status")[1]["last_pass"] is not None)
            waiting = call(f"{second}/data/status")[1]["last_pass"]
            assert waiting["outcome"] == "standby"
            assert "another trainer publishes" in waiting["reason"]
            published = generation(first)
        fed(second, lambda: generation(second) > published)
    store = open_store(bucket.location)
    numbers = store.generations()
    assert len(numbers) == len(set(numbers))
    for number in numbers:
        assert store.read(store.generation(number), "ttft").manifest.version <= number


def test_an_operators_rollback_is_what_the_next_model_is_compared_with(tmp_path: Path) -> None:
    with running_trainer(tmp_path) as url:
        feed(url)
        until(lambda: generation(url) >= 1)
        fed(url, lambda: generation(url) >= 2)
        until(lambda: call(f"{url}/data/status")[1]["last_pass"]["outcome"] == "published")
        store = open_store(str(tmp_path))
        older = store.generations()[0]
        newest = store.generations()[-1]
        store.rollback(older)
        until(lambda: generation(url) in (older, newest + 1))
        fed(url, lambda: generation(url) > newest)
