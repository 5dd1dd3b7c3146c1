import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_store import SCHEMAS, DamagedError, Draft, Manifest, NotFoundError, Output, StoreError, open_store


def draft(model: str = "ttft", onnx: bytes = b"model") -> Draft:
    manifest = Manifest(
        model=model,
        inputs=SCHEMAS["ttft"],
        outputs=(Output(f"{model}_ms", quantile=0.9),),
        model_type="xgboost",
        objective="quantile",
        trained_at=datetime.now(UTC),
        trainer_id="test",
    )
    return Draft(manifest, onnx)


def test_a_published_generation_reads_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    published = store.publish([draft("ttft", b"a"), draft("tpot", b"b")])
    current = store.current()
    assert current == published
    assert {name: store.read(current, name).onnx for name in current.models} == {"ttft": b"a", "tpot": b"b"}


def test_an_empty_or_absent_folder_has_no_generation(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "absent"))
    assert store.current() is None
    assert store.stamp() is None
    assert store.generations() == []


def test_a_lone_model_carries_the_others_over(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft("ttft", b"a"), draft("tpot", b"b")])
    second = store.publish([draft("ttft", b"c")])
    assert {name: ref.version for name, ref in second.models.items()} == {"ttft": 2, "tpot": 1}
    assert store.read(second, "ttft").manifest.parent_version == 1
    assert store.read(second, "tpot").onnx == b"b"


def test_the_stamp_changes_with_each_publication_and_rollback(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    empty = store.stamp()
    store.publish([draft()])
    first = store.stamp()
    store.publish([draft()])
    second = store.stamp()
    store.rollback(1)
    assert len({empty, first, second, store.stamp()}) == 4


def test_rollback_makes_the_older_generation_current_and_numbers_go_on(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft(onnx=b"old")])
    store.publish([draft(onnx=b"new")])
    assert store.read(store.rollback(1), "ttft").onnx == b"old"
    assert store.publish([draft()]).generation == 3


def test_rollback_to_an_unknown_generation_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(NotFoundError, match="generation-7"):
        store.rollback(7)


def test_collect_keeps_the_newest_and_what_they_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft("tpot", b"lone")])
    for _ in range(6):
        store.publish([draft("ttft")])
    assert store.collect(keep=2) == [1, 2, 3, 4, 5]
    assert store.generations() == [6, 7]
    current = store.current()
    assert current
    assert store.read(current, "tpot").onnx == b"lone"
    assert sorted(p.name for p in (tmp_path / "ttft").iterdir()) == ["6", "7", "config.pbtxt"]


def test_collect_never_removes_the_current_generation(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for _ in range(4):
        store.publish([draft()])
    store.rollback(1)
    assert store.collect(keep=1) == [2, 3]
    current = store.current()
    assert current
    assert store.read(current, "ttft").onnx == b"model"


def test_collect_goes_on_past_a_damaged_record(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for _ in range(3):
        store.publish([draft()])
    (tmp_path / "generation-2.json").write_text("{")
    assert store.collect(keep=2) == [1]
    current = store.current()
    assert current
    assert store.read(current, "ttft").onnx == b"model"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip])
@pytest.mark.parametrize("file", ["ttft/1/model.onnx", "ttft/1/manifest.json"])
def test_damage_is_noticed(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    store = open_store(str(tmp_path))
    generation = store.publish([draft()])
    damage(tmp_path / file)
    with pytest.raises(DamagedError, match="ttft/1"):
        store.read(generation, "ttft")


def test_a_torn_pointer_is_damage_and_not_an_empty_store(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft()])
    truncate(tmp_path / "current.json")
    truncate(tmp_path / "current.json")
    with pytest.raises(DamagedError, match=r"current\.json"):
        store.current()


def test_a_reader_beside_a_writer_sees_whole_generations_only(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish([draft("ttft", b"0"), draft("tpot", b"0")])

    def write() -> None:
        for number in range(1, 40):
            store.publish([draft(name, str(number).encode()) for name in ("ttft", "tpot")])

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        generation = store.current()
        assert generation
        assert store.read(generation, "ttft").onnx == store.read(generation, "tpot").onnx
    writer.join()


def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="model name"):
        open_store(str(tmp_path)).publish([draft("../evil")])


def test_an_unknown_kind_of_location_is_refused() -> None:
    with pytest.raises(StoreError, match="only folders"):
        open_store("ftp://models")


def test_triton_finds_a_configuration_with_the_graphs_columns(tmp_path: Path) -> None:
    open_store(str(tmp_path)).publish([draft()])
    text = (tmp_path / "ttft" / "config.pbtxt").read_text()
    assert 'platform: "onnxruntime_onnx"' in text
    assert all(f'name: "{feature.name}"' in text for feature in SCHEMAS["ttft"])


def test_one_leads_until_it_is_gone(tmp_path: Path) -> None:
    first, second = open_store(str(tmp_path)), open_store(str(tmp_path))
    assert first.lead("first")
    assert first.lead("first")
    assert not second.lead("second")
    assert second.leader() == "first"
    first.resign()
    assert second.lead("second")
    assert open_store(str(tmp_path)).leader() == "second"


def test_writers_in_turn_lose_no_generation(tmp_path: Path) -> None:
    def publish(name: str) -> None:
        store = open_store(str(tmp_path))
        for number in range(15):
            store.publish([draft(name, str(number).encode())])

    writers = [threading.Thread(target=publish, args=(name,)) for name in ("ttft", "tpot", "other")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = open_store(str(tmp_path))
    assert store.generations() == list(range(1, 46))
    current = store.current()
    assert current
    assert {name: store.read(current, name).onnx for name in current.models} == dict.fromkeys(
        ("ttft", "tpot", "other"), b"14"
    )
