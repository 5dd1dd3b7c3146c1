"""Tests that apply to every kind of store."""

import sys
import threading
from functools import partial
from itertools import pairwise

import pytest

from model_store import SCHEMAS, DamagedError, ModelStore, NotFoundError, StoreError, open_store
from tests.model_store.drafts import Damage, draft, flipped, in_force, truncated
from tests.model_store.places import Place


def test_a_published_generation_reads_back(store: ModelStore) -> None:
    published = store.publish([draft("ttft", b"a"), draft("tpot", b"b")])
    current = in_force(store)
    assert current == published
    assert {name: store.read(current, name).onnx for name in current.models} == {"ttft": b"a", "tpot": b"b"}


def test_the_files_are_those_of_a_triton_repository(store: ModelStore, place: Place) -> None:
    store.publish([draft()])
    files = ["config.pbtxt", "1/manifest.json", "1/model.onnx"]
    assert place.names() == sorted(["current.json", "generation-1.json", *(f"ttft/{file}" for file in files)])


def test_triton_finds_a_configuration_with_the_graphs_columns(store: ModelStore, place: Place) -> None:
    store.publish([draft()])
    text = place.read("ttft/config.pbtxt").decode()
    assert 'platform: "onnxruntime_onnx"' in text
    assert all(f'name: "{feature.name}"' in text for feature in SCHEMAS["ttft"])


def test_an_empty_store_has_no_generation(store: ModelStore) -> None:
    assert store.current() is None
    assert store.stamp() is None
    assert store.generations() == []
    assert store.leader() == ""
    assert store.collect() == []


def test_publishing_no_drafts_is_refused(store: ModelStore) -> None:
    with pytest.raises(StoreError, match="nothing"):
        store.publish([])


def test_publishing_one_model_carries_the_others_over(store: ModelStore) -> None:
    store.publish([draft("ttft", b"a"), draft("tpot", b"b")])
    second = store.publish([draft("ttft", b"c")])
    assert {name: ref.version for name, ref in second.models.items()} == {"ttft": 2, "tpot": 1}
    assert store.read(second, "ttft").manifest.parent_version == 1
    assert store.read(second, "tpot").onnx == b"b"


def test_the_stamp_changes_with_each_publication_and_rollback(store: ModelStore) -> None:
    stamps = [store.stamp()]
    publish, rollback = partial(store.publish, [draft()]), partial(store.rollback, 1)
    for change in (publish, publish, rollback):
        change()
        stamps.append(store.stamp())
        assert stamps[-1] == store.stamp()
    assert all(before != after for before, after in pairwise(stamps))


def test_rollback_makes_an_older_generation_current_and_numbering_continues(store: ModelStore) -> None:
    store.publish([draft(onnx=b"old")])
    store.publish([draft(onnx=b"new")])
    assert store.read(store.rollback(1), "ttft").onnx == b"old"
    assert in_force(store).generation == 1
    assert store.publish([draft()]).generation == 3


def test_rollback_to_an_unknown_generation_is_refused(store: ModelStore) -> None:
    with pytest.raises(NotFoundError, match="generation-7"):
        store.rollback(7)


def test_collect_keeps_the_newest_generations_and_their_versions(store: ModelStore, place: Place) -> None:
    store.publish([draft("tpot", b"lone")])
    for _ in range(6):
        store.publish([draft("ttft")])
    assert store.collect(keep=2) == [1, 2, 3, 4, 5]
    assert store.generations() == [6, 7]
    assert store.read(in_force(store), "tpot").onnx == b"lone"
    assert {name.split("/")[1] for name in place.names() if name.startswith("ttft/")} == {"6", "7", "config.pbtxt"}


def test_collect_never_removes_the_current_generation(store: ModelStore) -> None:
    for _ in range(4):
        store.publish([draft()])
    store.rollback(1)
    assert store.collect(keep=1) == [2, 3]
    assert store.read(in_force(store), "ttft").onnx == b"model"


def test_collect_goes_on_past_a_damaged_record(store: ModelStore, place: Place) -> None:
    for _ in range(3):
        store.publish([draft()])
    place.write("generation-2.json", b"{")
    assert store.collect(keep=2) == [1]
    assert store.read(in_force(store), "ttft").onnx == b"model"


@pytest.mark.parametrize("damage", [truncated, flipped])
@pytest.mark.parametrize("file", ["ttft/1/model.onnx", "ttft/1/manifest.json"])
def test_damage_is_detected(store: ModelStore, place: Place, file: str, damage: Damage) -> None:
    generation = store.publish([draft()])
    place.write(file, damage(place.read(file)))
    with pytest.raises(DamagedError, match="ttft/1"):
        store.read(generation, "ttft")
    with pytest.raises(DamagedError, match="ttft/1"):
        store.rollback(1)


def test_another_versions_manifest_is_detected(store: ModelStore, place: Place) -> None:
    store.publish([draft(onnx=b"one")])
    second = store.publish([draft(onnx=b"two")])
    for file in ("manifest.json", "model.onnx"):
        place.write(f"ttft/2/{file}", place.read(f"ttft/1/{file}"))
    with pytest.raises(DamagedError, match="ttft/2/manifest"):
        store.read(second, "ttft")


def test_a_torn_pointer_is_damage_and_not_an_empty_store(store: ModelStore, place: Place) -> None:
    store.publish([draft()])
    place.write("current.json", place.read("current.json")[:-2])
    with pytest.raises(DamagedError, match=r"current\.json"):
        store.current()


def test_a_reader_beside_a_writer_sees_whole_generations_only(store: ModelStore) -> None:
    store.publish([draft("ttft", b"0"), draft("tpot", b"0")])

    def write() -> None:
        for number in range(1, 30):
            store.publish([draft(name, str(number).encode()) for name in ("ttft", "tpot")])

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        generation = in_force(store)
        assert store.read(generation, "ttft").onnx == store.read(generation, "tpot").onnx
    writer.join()


def test_model_names_that_leave_the_store_are_refused(store: ModelStore, place: Place) -> None:
    with pytest.raises(StoreError, match="model name"):
        store.publish([draft("../evil")])
    assert place.names() == []


def test_one_leads_until_it_resigns(place: Place) -> None:
    first, second = open_store(place.location), open_store(place.location)
    assert first.lead("first")
    assert first.lead("first")
    assert not second.lead("second")
    assert second.leader() == "first"
    first.resign()
    assert second.lead("second")
    assert open_store(place.location).leader() == "second"


@pytest.mark.parametrize("location", ["ftp://models", "s3://", "s3:///prefix"])
def test_an_unknown_kind_of_location_is_refused(location: str) -> None:
    with pytest.raises(StoreError, match="only folders and s3://bucket/prefix"):
        open_store(location)


def test_without_boto3_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("model_store.s3", "model_store.lease", "model_store.bucket"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StoreError, match="boto3: install Headroom with its extra s3"):
        open_store("s3://bucket/prefix")


@pytest.mark.parametrize("garbage", [b"", b"{", b"garbage", b"\xff\x00" * 100, b"[" * 100_000, b'{"generation": 2}'])
def test_a_damaged_pointer_is_set_aside_and_replaced(store: ModelStore, place: Place, garbage: bytes) -> None:
    store.publish([draft("ttft", b"a"), draft("tpot", b"b")])
    second = store.publish([draft("ttft", b"c")])
    place.write("current.json", garbage)
    with pytest.raises(DamagedError):
        store.publish([draft()])
    repaired = store.repair()
    assert repaired
    assert repaired.generation == in_force(store) == second
    assert place.read(repaired.set_aside) == garbage
    assert store.publish([draft()]).generation == 3
    assert store.repair() is None


def test_the_newest_whole_generation_replaces_a_damaged_pointer(store: ModelStore, place: Place) -> None:
    first = store.publish([draft("ttft", b"a")])
    store.publish([draft("ttft", b"b")])
    store.publish([draft("ttft", b"c")])
    place.write("ttft/2/model.onnx", b"")
    place.write("generation-3.json", b"{")
    place.write("current.json", b"{")
    repaired = store.repair()
    assert repaired
    assert repaired.generation == in_force(store) == first


def test_a_damaged_pointer_to_nothing_leaves_an_empty_store(store: ModelStore, place: Place) -> None:
    place.write("current.json", b"{")
    repaired = store.repair()
    assert repaired
    assert repaired.generation is None
    assert store.current() is None
    assert store.publish([draft()]).generation == 1


def test_a_pointer_of_another_version_is_left_alone(store: ModelStore, place: Place) -> None:
    store.publish([draft()])
    later = b'{"format": 2, "generations": []}'
    place.write("current.json", later)
    with pytest.raises(DamagedError):
        store.repair()
    assert place.read("current.json") == later


@pytest.mark.parametrize("file", ["ttft/1/model.onnx", "ttft/1/manifest.json", "generation-1.json"])
def test_no_file_is_read_beyond_what_it_may_have(store: ModelStore, place: Place, file: str) -> None:
    store.publish([draft()])
    place.write(file, place.read(file) + b" " * (2 << 20))
    with pytest.raises(DamagedError, match=rf"{file} has more than \d+ bytes"):
        store.rollback(1)


def test_an_endless_pointer_is_set_aside_by_its_beginning(store: ModelStore, place: Place) -> None:
    store.publish([draft()])
    place.write("current.json", b" " * (2 << 20))
    with pytest.raises(DamagedError, match=r"current.json has more than"):
        store.current()
    assert store.repair()
    assert in_force(store).generation == 1


def test_an_empty_store_needs_no_repair(store: ModelStore) -> None:
    assert store.repair() is None
