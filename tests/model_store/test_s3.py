"""Tests that apply only to a store in a bucket: several writers without locks, and an S3 that is down or refuses."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from model_store import Generation, ModelRef, ModelStore, StoreError, StoreUnavailableError, open_store
from tests.model_store.drafts import draft, in_force
from tests.model_store.places import BucketPlace
from tests.model_store.s3_server import S3Server, once

POINTER = "models/current.json"


def test_concurrent_writers_lose_no_generation(bucket: BucketPlace) -> None:
    rounds, names = 8, ("ttft", "tpot")
    meeting = threading.Barrier(len(names))

    def publish(name: str) -> list[Generation]:
        store = open_store(bucket.location)
        published = []
        for number in range(rounds):
            meeting.wait()
            published.append(store.publish([draft(name, f"{name} {number}".encode()), draft("both", name.encode())]))
        return published

    with ThreadPoolExecutor(len(names)) as pool:
        published = [generation for result in pool.map(publish, names) for generation in result]
    store = open_store(bucket.location)
    numbers = sorted(generation.generation for generation in published)
    assert len(set(numbers)) == rounds * len(names)
    assert store.generations() == numbers
    assert in_force(store) == max(published, key=lambda generation: generation.generation)
    for generation in published:
        assert store.generation(generation.generation) == generation
        for model in generation.models:
            store.read(generation, model)
    last = in_force(store)
    assert [store.read(last, name).onnx for name in names] == [f"{name} {rounds - 1}".encode() for name in names]


def test_a_writer_that_finds_the_pointer_moved_builds_on_the_new_generation(bucket: BucketPlace, s3: S3Server) -> None:
    store, other = open_store(bucket.location), open_store(bucket.location)
    store.publish([draft("ttft", b"0"), draft("tpot", b"0")])
    s3.before = once("PUT", POINTER, lambda: other.publish([draft("tpot", b"other's")]))
    published = store.publish([draft("ttft", b"mine")])
    assert (published.generation, store.generations()) == (4, [1, 3, 4])
    assert store.read(published, "ttft").onnx == b"mine"
    assert store.read(published, "tpot").onnx == b"other's"
    assert in_force(other) == published


def test_two_first_publications_are_merged(bucket: BucketPlace, s3: S3Server) -> None:
    other = open_store(bucket.location)
    s3.before = once("PUT", POINTER, lambda: other.publish([draft("tpot")]))
    assert set(open_store(bucket.location).publish([draft("ttft")]).models) == {"ttft", "tpot"}


def test_a_number_that_another_writer_reserved_is_skipped(bucket: BucketPlace, s3: S3Server) -> None:
    s3.before = once("PUT", "ttft/1/manifest.json", partial(bucket.write, "ttft/1/manifest.json", b"other's"))
    assert open_store(bucket.location).publish([draft("ttft")]).generation == 2
    assert bucket.read("ttft/1/manifest.json") == b"other's"


def test_a_writer_gives_up_after_five_conflicts(bucket: BucketPlace, s3: S3Server) -> None:
    store = open_store(bucket.location)
    first = store.publish([draft()])
    conflict = 409, "ConditionalRequestConflict"
    s3.before = lambda method, path: conflict if method == "PUT" and path.endswith(POINTER) else None
    with pytest.raises(StoreError, match="each of 5 attempts"):
        store.publish([draft()])
    assert store.generations() == [1]
    assert in_force(store) == first


@pytest.mark.parametrize("path", [POINTER, "ttft/2/manifest.json", "generation-2.json"])
def test_a_write_whose_answer_was_lost_still_counts(bucket: BucketPlace, s3: S3Server, path: str) -> None:
    store = open_store(bucket.location)
    store.publish([draft(onnx=b"old")])
    s3.after = once("PUT", path, error=(500, "InternalError"))
    published = store.publish([draft(onnx=b"new")])
    assert in_force(store) == published
    assert store.read(published, "ttft").onnx == b"new"
    if path == POINTER:
        assert published.generation == 2


def test_a_rollback_fails_when_another_publishes_meanwhile(bucket: BucketPlace, s3: S3Server) -> None:
    store, other = open_store(bucket.location), open_store(bucket.location)
    for _ in range(2):
        store.publish([draft()])
    s3.before = once("PUT", POINTER, lambda: other.publish([draft()]))
    with pytest.raises(StoreError, match=r"current\.json was written by another process meanwhile"):
        store.rollback(1)
    assert in_force(store).generation == 3


def test_collect_keeps_versions_that_another_writer_is_about_to_publish(bucket: BucketPlace, s3: S3Server) -> None:
    store, collector = open_store(bucket.location), open_store(bucket.location)
    for _ in range(3):
        store.publish([draft("ttft"), draft("tpot")])
    bucket.write("ttft/2/left-by-an-older-collector", b"")
    removed: list[list[int]] = []

    def collect() -> None:
        removed.append(collector.collect(keep=1))

    s3.before = once("PUT", "generation-4.json", collect)
    fourth = store.publish([draft("ttft", b"new")])
    assert (fourth.generation, removed, store.generations()) == (4, [[1, 2]], [3, 4])
    assert store.read(fourth, "ttft").onnx == b"new"
    assert not [name for name in bucket.names() if name.startswith(("ttft/1", "ttft/2", "tpot/1", "tpot/2"))]


def test_versions_of_a_failed_publication_are_collected_once_below_the_current(bucket: BucketPlace) -> None:
    store = open_store(bucket.location)
    store.publish([draft()])
    bucket.write("ttft/2/manifest.json", b"of a writer that died")
    store.collect()
    assert "ttft/2/manifest.json" in bucket.names()
    assert store.publish([draft()]).generation == 3
    store.collect()
    assert "ttft/2/manifest.json" not in bucket.names()


def test_stores_of_different_prefixes_share_a_bucket(bucket: BucketPlace) -> None:
    name = bucket.location.removeprefix("s3://").partition("/")[0]
    locations = [f"s3://{name}", f"s3://{name}/a", f"s3://{name}/ab/"]
    for location in locations:
        open_store(location).publish([draft(onnx=location.encode())])
    for location in locations:
        store = open_store(location)
        assert store.location == location.rstrip("/")
        assert store.generations() == [1]
        assert store.read(in_force(store), "ttft").onnx == location.encode()


def calls_of_all_methods(store: ModelStore) -> dict[str, Callable[[], object]]:
    """Return a call of every method that needs S3. The generation that is read need not exist."""
    generation = Generation(1, {"ttft": ModelRef(1, "")}, draft().manifest.trained_at)
    return {
        "stamp": store.stamp,
        "current": store.current,
        "generation": lambda: store.generation(1),
        "generations": store.generations,
        "read": lambda: store.read(generation, "ttft"),
        "lead": lambda: store.lead("me"),
        "leader": store.leader,
        "publish": lambda: store.publish([draft()]),
        "collect": store.collect,
        "rollback": lambda: store.rollback(1),
    }


def error_texts(store: ModelStore) -> set[str]:
    """Return the error texts of all methods while S3 is down. They run in parallel, since each may take seconds."""

    def reason(use: Callable[[], object]) -> str:
        with pytest.raises(StoreUnavailableError) as caught:
            use()
        return str(caught.value)

    with ThreadPoolExecutor(16) as pool:
        texts = set(pool.map(reason, calls_of_all_methods(store).values()))
    store.resign()
    assert all(store.location in text and "\n" not in text and "hush" not in text for text in texts)
    return texts


def test_an_unreachable_s3_is_reported_within_seconds(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://user:hush@127.0.0.1:9")
    started_at = time.monotonic()
    assert all("Could not connect" in text and "127.0.0.1:9" in text for text in error_texts(open_store("s3://b-1/p")))
    assert time.monotonic() - started_at < 15


def test_a_missing_bucket_is_reported(s3: S3Server) -> None:
    assert error_texts(open_store("s3://absent/p")) == {
        "model store s3://absent/p: there is no bucket 'absent'; create it"
    }


def test_refused_credentials_are_reported(bucket: BucketPlace, s3: S3Server) -> None:
    s3.before = lambda method, path: (403, "InvalidAccessKeyId")
    expected = f"model store {bucket.location}: S3 refuses these credentials"
    assert all(text.startswith(expected) for text in error_texts(open_store(bucket.location)))


def test_a_server_that_is_not_s3_is_not_an_empty_store(bucket: BucketPlace, s3: S3Server) -> None:
    s3.before = lambda method, path: (404, "NotFound")
    assert all("(NotFound)" in text for text in error_texts(open_store(bucket.location)))


def test_expired_credentials_are_reported(bucket: BucketPlace, s3: S3Server) -> None:
    s3.before = lambda method, path: (400, "ExpiredToken")
    with pytest.raises(StoreUnavailableError, match=r"refuses these credentials \(ExpiredToken\)"):
        open_store(bucket.location).current()


def test_absent_credentials_are_reported(bucket: BucketPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert error_texts(open_store(bucket.location)) == {f"model store {bucket.location}: Unable to locate credentials"}


@pytest.mark.parametrize(
    ("location", "endpoint", "reason"),
    [("s3://b-1/p", "no-url", "Invalid endpoint"), ("s3://NO BUCKET", "http://127.0.0.1:9", "Invalid bucket name")],
)
def test_a_wrong_setting_is_reported(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, location: str, endpoint: str, reason: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert all(reason in text for text in error_texts(open_store(location)))


def test_a_failed_request_is_retried(bucket: BucketPlace, s3: S3Server) -> None:
    store = open_store(bucket.location)
    published = store.publish([draft()])
    s3.before = once("GET", POINTER, error=(503, "SlowDown"))
    assert store.current() == published


def test_threads_can_share_a_new_store(bucket: BucketPlace) -> None:
    store = open_store(bucket.location)
    store.publish([draft()])
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.stamp(), range(40))) == {store.stamp()}
