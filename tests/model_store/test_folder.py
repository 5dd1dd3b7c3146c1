"""Tests that apply only to a store in a folder."""

import errno
import os
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


def test_a_publication_on_a_full_volume_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft()])
    before = sorted(tmp_path.rglob("*"))

    def refuse(descriptor: int) -> None:
        if b"model.onnx" in os.readlink(f"/proc/self/fd/{descriptor}").encode():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        store.publish([draft()])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_leader_leads_the_store_that_took_the_place_of_its_own(tmp_path: Path) -> None:
    store, other = open_store(str(tmp_path / "store")), open_store(str(tmp_path / "store"))
    assert store.lead("first")
    (tmp_path / "store").rename(tmp_path / "lost")
    assert other.lead("second")
    assert not store.lead("first")
    other.resign()
    assert store.lead("first")


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
