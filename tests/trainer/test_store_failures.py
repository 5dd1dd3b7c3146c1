"""Tests of a trainer and a predictor while their store is damaged, full, read-only or unreachable."""

import logging
import re
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import Draft, Trust, open_store
from model_store.signing import make_keys
from tests.live import PATIENCE_S, call, until
from tests.model_store.places import BucketPlace
from tests.model_store.s3_server import S3Server
from tests.predictor.bombs import endless_loop
from tests.predictor.models import pair, running_predictor
from tests.predictor.test_v1 import ROW
from tests.trainer.process import TrainerProcess, started
from tests.trainer.test_trainer_app import entries, running_trainer

SEEDS = iter(range(1, 1_000_000))


def feed(url: str, count: int = 200) -> None:
    assert call(f"{url}/add_training_data_bulk", {"entries": entries(count, next(SEEDS))})[0] == 202


def feed_until(url: str, condition: Callable[[], bool]) -> None:
    """Feed samples, which each pass needs, until a condition holds; few enough to keep the journal small."""
    fed_at = 0.0

    def feed_and_check() -> bool:
        nonlocal fed_at
        if time.monotonic() - fed_at > 0.2:
            feed(url, 5)
            fed_at = time.monotonic()
        return condition()

    until(feed_and_check)


def generation(url: str) -> int:
    return int(call(f"{url}/data/status")[1]["generation"] or 0)


def failures(url: str, stage: str) -> float:
    match = re.search(rf'headroom_trainer_failures_total\{{stage="{stage}"\}} (\S+)', call(f"{url}/metrics")[1])
    return float(match[1]) if match else 0.0


def served_generation(url: str) -> int:
    return int(call(f"{url}/v1")[1]["generation"])


def failed_loads(url: str) -> float:
    match = re.search(r'headroom_predictor_loads_total\{outcome="failed"\} (\S+)', call(f"{url}/metrics")[1])
    return float(match[1]) if match else 0.0


def test_a_full_disk_keeps_the_last_generation_until_there_is_space_again(tmp_path: Path) -> None:
    with started(tmp_path, "--trees", "300") as trainer:
        feed(trainer.url)
        until(lambda: generation(trainer.url) >= 1)
        with running_predictor(tmp_path / "store") as predictor:
            # The limit is below a model file's size, and above that of the pointer and of a small journal.
            _limit_files(trainer, 60_000)
            feed_until(trainer.url, lambda: failures(trainer.url, "publish") >= 2)
            assert "File too large" in call(f"{trainer.url}/data/status")[1]["last_pass"]["reason"]
            assert "pass: failed can't use model store" in trainer.log
            before = generation(trainer.url)
            until(lambda: served_generation(predictor) == before)
            _limit_files(trainer, resource.RLIM_INFINITY)
            feed_until(trainer.url, lambda: generation(trainer.url) > before)
            until(lambda: served_generation(predictor) > before)
    assert not list((tmp_path / "store").rglob(".partial-*")), "partial files were not removed"


def _limit_files(trainer: TrainerProcess, size_bytes: int) -> None:
    _, hard = resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def test_a_read_only_store_keeps_the_last_generation_until_it_is_writable(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with started(tmp_path, drop_capabilities=True) as trainer:
        feed(trainer.url)
        until(lambda: generation(trainer.url) >= 1)
        with running_predictor(store) as predictor:
            folders = [store, store / "ttft", store / "tpot"]
            _set_modes(folders, 0o555)
            try:
                feed_until(trainer.url, lambda: failures(trainer.url, "publish") >= 2)
                assert "Permission denied" in call(f"{trainer.url}/data/status")[1]["last_pass"]["reason"]
                before = generation(trainer.url)
                assert served_generation(predictor) == before
            finally:
                _set_modes(folders, 0o755)
            feed_until(trainer.url, lambda: generation(trainer.url) > before)
            until(lambda: served_generation(predictor) > before)
    assert trainer.log.count("Permission denied") < 5, "the same failure is logged too often"


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


def alter_the_manifest(version: Path) -> None:
    manifest = version / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ttft_ms"', '"tpot_ms"'))


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, alter_the_manifest])
def test_a_damaged_generation_is_not_served_and_the_next_replaces_it(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    location, journal = tmp_path / "store", str(tmp_path / "journal")
    with running_trainer(location, journal=journal) as url:
        feed(url)
        until(lambda: generation(url) >= 1)
    store = open_store(str(location))
    with running_predictor(location, interval_s=3600) as predictor:
        until(lambda: call(f"{predictor}/readyz")[0] == 200)
        good = served_generation(predictor)
        with running_trainer(location, journal=journal) as url:
            feed_until(url, lambda: generation(url) > good)
        current = store.current()
        assert current
        damage(location / "ttft" / str(current.models["ttft"].version))
        assert call(f"{predictor}/reload", b"")[1]["loaded"] is False
        assert served_generation(predictor) == good
        assert failed_loads(predictor) == 1
        assert "the loaded models keep serving" in caplog.text
        with running_trainer(location, journal=journal) as url:
            until(lambda: failures(url, "read") == 1)
            assert "can't read the generation in force" in caplog.text
            feed_until(url, lambda: generation(url) > current.generation)
        assert call(f"{predictor}/reload", b"")[1]["loaded"] is True
        assert served_generation(predictor) > current.generation


def test_a_damaged_pointer_is_repaired_and_publication_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pointer = tmp_path / "store" / "current.json"
    with running_trainer(tmp_path / "store") as url, running_predictor(tmp_path / "store") as predictor:
        feed(url)
        until(lambda: generation(url) >= 1)
        until(lambda: call(f"{predictor}/readyz")[0] == 200)
        before = generation(url)
        # Renamed into place, so that the trainer never reads an empty file.
        draft = pointer.with_suffix(".draft")
        draft.write_bytes(b"garbage")
        draft.replace(pointer)
        # Nothing is fed meanwhile: the repair doesn't wait for a pass.
        until(lambda: "headroom_trainer_store_repairs_total 1.0" in call(f"{url}/metrics")[1])
        assert pointer.with_name("current.json.damaged").read_bytes() == b"garbage"
        assert "current.json is not a generation" in caplog.text
        assert f"in force now: generation {before}" in caplog.text
        feed_until(url, lambda: generation(url) > before)
        until(lambda: served_generation(predictor) > before)


def metric(url: str, name: str) -> float:
    match = re.search(rf"^{name} (\S+)", call(f"{url}/metrics")[1], re.MULTILINE)
    return float(match[1]) if match else 0.0


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 1000])
def test_a_replaced_store_is_told_and_followed(tmp_path: Path, first: int, caplog: pytest.LogCaptureFixture) -> None:
    place, other = tmp_path / "store", tmp_path / "other"
    with running_trainer(place) as url, running_predictor(place) as predictor:
        feed(url)
        until(lambda: generation(url) >= 1)
        feed_until(url, lambda: generation(url) >= 3)
        until(lambda: call(f"{url}/data/status")[1]["last_pass"]["outcome"] == "published")
        (other / "ttft" / str(first - 1)).mkdir(parents=True)
        assert open_store(str(other)).publish(pair(5.0)).generation == first
        place.rename(tmp_path / "lost")
        other.rename(place)
        until(lambda: metric(url, "headroom_trainer_store_replacements_total") == 1)
        assert caplog.text.count("the model store was replaced") == 1
        replaced = open_store(str(place))
        # The first of these may have begun before.
        feed_until(url, lambda: replaced.generations()[-1] > first + 1)
        until(lambda: served_generation(predictor) == generation(url) == replaced.generations()[-1])
        assert not replaced.lead("another")


@pytest.mark.parametrize(("graph", "reason"), [(lambda: b"no graph", "not an ONNX model"), (endless_loop, "Loop")])
def test_a_graph_that_can_not_run_or_hangs_is_replaced_by_the_next_pass(
    tmp_path: Path, graph: Callable[[], bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running_trainer(tmp_path) as url:
        feed(url)
        until(lambda: generation(url) >= 1)
        broken = open_store(str(tmp_path)).publish([Draft(one.manifest, graph()) for one in pair(1.0)])
        until(lambda: failures(url, "read") >= 1)
        assert "can't read the generation in force" in caplog.text
        assert reason in caplog.text
        feed_until(url, lambda: generation(url) > broken.generation)


def test_a_signing_trainer_replaces_a_generation_that_another_wrote(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signing, verify, place = tmp_path / "signing.key", tmp_path / "verify.pem", tmp_path / "store"
    make_keys(signing, verify)
    with running_trainer(place, signing_key_file=str(signing)) as url:
        feed(url)
        until(lambda: generation(url) >= 1)
        until(lambda: call(f"{url}/data/status")[1]["last_pass"]["outcome"] == "published")
        before = generation(url)
        open_store(str(place)).publish(pair(9.0))
        until(lambda: metric(url, "headroom_trainer_store_repairs_total") == 1)
        assert "current.json is not signed" in caplog.text
        reader = open_store(str(place), Trust(verify_key_file=str(verify)))
        current = reader.current()
        assert current
        assert current.generation == before


def test_a_slow_s3_is_told_once_and_recovers(
    bucket: BucketPlace, s3: S3Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predictor.repository._SLOW_POLL_S", 0.5)
    caplog.set_level(logging.INFO)
    store = open_store(bucket.location)
    store.publish(pair(1.0))
    with running_predictor(bucket.location) as predictor:
        goes_on = threading.Event()

        def wait(method: str, path: str) -> None:
            goes_on.wait(PATIENCE_S)

        s3.before = wait
        until(lambda: metric(predictor, "headroom_predictor_last_poll_age_seconds") > 0.5)
        assert call(f"{predictor}/v1/ttft", ROW)[0] == 200
        # A busy machine's polls may be slow by themselves. Each time, both ends are told once.
        until(lambda: slow_times(caplog) == 1)
        goes_on.set()
        s3.remove_hooks()
        newest = store.publish(pair(2.0))
        until(lambda: served_generation(predictor) == newest.generation)
        until(lambda: slow_times(caplog) == 0)


def slow_times(caplog: pytest.LogCaptureFixture) -> int:
    """Return how often the store was told to be slow, less how often to be fast again."""
    return caplog.text.count("the model store is slow") - caplog.text.count("the model store is fast again")


def test_a_stale_pointer_of_s3_is_followed_without_an_error(bucket: BucketPlace, s3: S3Server) -> None:
    store = open_store(bucket.location)
    store.publish(pair(1.0))
    old = bucket.read("current.json")
    second = store.publish(pair(2.0))
    newest = bucket.read("current.json")
    with running_predictor(bucket.location) as predictor:
        until(lambda: served_generation(predictor) == second.generation)
        bucket.write("current.json", old)
        until(lambda: served_generation(predictor) == 1)
        bucket.write("current.json", newest)
        until(lambda: served_generation(predictor) == second.generation)
        assert metric(predictor, "headroom_predictor_load_failing") == 0


def test_an_unavailable_s3_keeps_the_last_generation_until_it_is_back(
    bucket: BucketPlace, s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    with running_trainer(bucket.location) as url, running_predictor(bucket.location) as predictor:
        feed(url)
        until(lambda: generation(url) >= 1)
        until(lambda: call(f"{predictor}/readyz")[0] == 200)
        s3.before = lambda method, path: (500, "InternalError")
        feed_until(url, lambda: failures(url, "lead") + failures(url, "publish") >= 1)
        before = generation(url)
        assert call(f"{predictor}/v1/ttft", ROW)[0] == 200
        until(lambda: failed_loads(predictor) >= 1)
        assert bucket.location in caplog.text
        s3.remove_hooks()
        feed_until(url, lambda: generation(url) > before)
        until(lambda: served_generation(predictor) > before)


def test_a_second_trainer_on_s3_takes_over_when_the_first_ends(bucket: BucketPlace) -> None:
    with running_trainer(bucket.location) as second:
        with running_trainer(bucket.location) as first:
            feed(first)
            until(lambda: call(f"{first}/readyz")[0] == 200)
            feed_until(second, lambda: call(f"{second}/data/status")[1]["last_pass"] is not None)
            waiting = call(f"{second}/data/status")[1]["last_pass"]
            assert waiting["outcome"] == "standby"
            assert "another trainer publishes" in waiting["reason"]
            published = generation(first)
        feed_until(second, lambda: generation(second) > published)
    store = open_store(bucket.location)
    numbers = store.generations()
    assert len(numbers) == len(set(numbers))
    for number in numbers:
        assert store.read(store.generation(number), "ttft").manifest.version <= number


def test_the_next_model_is_compared_with_a_rolled_back_generation(tmp_path: Path) -> None:
    with running_trainer(tmp_path) as url:
        feed(url)
        until(lambda: generation(url) >= 1)
        feed_until(url, lambda: generation(url) >= 2)
        until(lambda: call(f"{url}/data/status")[1]["last_pass"]["outcome"] == "published")
        store = open_store(str(tmp_path))
        older = store.generations()[0]
        newest = store.generations()[-1]
        store.rollback(older)
        until(lambda: generation(url) in (older, newest + 1))
        feed_until(url, lambda: generation(url) > newest)
