"""Tests that apply only to a store in a folder."""

import threading
from pathlib import Path

import pytest

from model_store import ModelStore, StoreUnavailableError, open_store
from tests.model_store.drafts import draft, in_force


def test_the_stamp_changes_even_when_the_pointer_returns_to_an_old_generation(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft()])
    first = store.stamp()
    store.publish([draft()])
    store.rollback(1)
    assert store.stamp() != first


def test_a_path_that_is_not_a_folder_is_not_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = open_store(str(tmp_path / "file"))

    def publish() -> None:
        store.publish([draft()])

    for use in (store.stamp, store.current, store.generations, publish):
        with pytest.raises(StoreUnavailableError, match=r"file.*: "):
            use()


def test_an_interrupted_publication_is_collected(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft()])
    for leftover in ("2", ".partial-2-abcd"):
        (tmp_path / "ttft" / leftover).mkdir()
    store.collect()
    assert sorted(path.name for path in (tmp_path / "ttft").iterdir()) == ["1", "config.pbtxt"]


def test_concurrent_writers_lose_no_generation(tmp_path: Path) -> None:
    def publish(name: str) -> None:
        store: ModelStore = open_store(str(tmp_path))
        for number in range(15):
            store.publish([draft(name, str(number).encode())])

    writers = [threading.Thread(target=publish, args=(name,)) for name in ("ttft", "tpot", "other")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = open_store(str(tmp_path))
    assert store.generations() == list(range(1, 46))
    current = in_force(store)
    assert {name: store.read(current, name).onnx for name in current.models} == dict.fromkeys(
        ("ttft", "tpot", "other"), b"14"
    )
