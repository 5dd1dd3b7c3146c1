"""Tests of signed generations, in every kind of store."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_store import ModelStore, StoreError, Trust, UntrustedError, open_store
from model_store.signing import make_keys
from tests.live import PATIENCE_S
from tests.model_store.drafts import draft, in_force
from tests.model_store.places import FolderPlace, Place


@dataclass(frozen=True)
class Keys:
    signing: str
    verify: str


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return new_keys(tmp_path / "keys")


def new_keys(folder: Path) -> Keys:
    folder.mkdir()
    made = Keys(str(folder / "signing.key"), str(folder / "verify.pem"))
    make_keys(Path(made.signing), Path(made.verify))
    return made


def writer(place: Place, keys: Keys) -> ModelStore:
    return open_store(place.location, Trust(keys.signing))


def reader(place: Place, keys: Keys) -> ModelStore:
    return open_store(place.location, Trust(verify_key_file=keys.verify))


def test_a_signed_generation_is_read_by_all_and_an_unsigned_one_by_those_without_a_key(
    place: Place, keys: Keys
) -> None:
    signed = writer(place, keys).publish([draft("ttft", b"a"), draft("tpot", b"b")])
    assert reader(place, keys).current() == open_store(place.location).current() == signed
    unsigned = open_store(place.location).publish([draft("ttft", b"evil")])
    assert in_force(open_store(place.location)) == unsigned
    with pytest.raises(UntrustedError, match=r"current\.json is not signed"):
        reader(place, keys).current()
    with pytest.raises(UntrustedError, match=r"generation-2\.json is not signed"):
        reader(place, keys).rollback(2)
    assert reader(place, keys).generation(1) == signed


def test_another_key_is_refused_unless_it_is_known(place: Place, keys: Keys, tmp_path: Path) -> None:
    newer = new_keys(tmp_path / "newer")
    published = writer(place, newer).publish([draft()])
    with pytest.raises(UntrustedError, match="signed by the unknown key"):
        reader(place, keys).current()
    both = tmp_path / "both.pem"
    both.write_text(Path(keys.verify).read_text() + Path(newer.verify).read_text())
    assert open_store(place.location, Trust(verify_key_file=str(both))).current() == published
    # The file is read again at each use.
    store = reader(place, keys)
    Path(keys.verify).write_text(both.read_text())
    assert store.current() == published


def test_an_old_generation_cannot_be_replayed_as_a_newer_one(place: Place, keys: Keys) -> None:
    store = writer(place, keys)
    store.publish([draft("ttft", b"old")])
    store.publish([draft("ttft", b"new")])
    renumbered = json.loads(place.read("generation-1.json")) | {"generation": 2}
    place.write("current.json", json.dumps(renumbered).encode())
    with pytest.raises(UntrustedError, match="differs from what key"):
        reader(place, keys).current()
    for name in ("json", "sig"):
        place.write(f"generation-2.{name}", place.read(f"generation-1.{name}"))
    with pytest.raises(StoreError, match="is the record of generation 1"):
        reader(place, keys).generation(2)


def test_models_of_two_generations_cannot_be_mixed(place: Place, keys: Keys) -> None:
    store = writer(place, keys)
    for content in (b"1", b"2"):
        store.publish([draft("ttft", content), draft("tpot", content)])
    first, second = (json.loads(place.read(f"generation-{number}.json")) for number in (1, 2))
    second["models"]["ttft"] = first["models"]["ttft"]
    place.write("current.json", json.dumps(second).encode())
    with pytest.raises(UntrustedError, match="differs from what key"):
        reader(place, keys).current()


def test_a_rollback_needs_no_key_and_keeps_the_signature(place: Place, keys: Keys) -> None:
    store = writer(place, keys)
    first = store.publish([draft("ttft", b"1")])
    store.publish([draft("ttft", b"2")])
    open_store(place.location).rollback(1)
    assert reader(place, keys).current() == first


@pytest.mark.parametrize("garbage", [b"", b"{}", b'{"key": "%s", "signature": "AAAA"}'])
def test_a_damaged_signature_is_refused(place: Place, keys: Keys, garbage: bytes) -> None:
    writer(place, keys).publish([draft()])
    known = json.loads(place.read("generation-1.sig"))["key"]
    place.write("generation-1.sig", garbage.replace(b"%s", known.encode()))
    with pytest.raises(UntrustedError, match=r"current\.json"):
        reader(place, keys).current()


def test_a_writer_signs_for_no_model_of_an_untrusted_generation(place: Place, keys: Keys) -> None:
    open_store(place.location).publish([draft("ttft", b"evil"), draft("tpot", b"evil")])
    published = writer(place, keys).publish([draft("ttft", b"good")])
    assert (published.generation, set(published.models)) == (2, {"ttft"})


def test_an_untrusted_pointer_is_repaired_where_a_trusted_generation_is_left(place: Place, keys: Keys) -> None:
    store = writer(place, keys)
    open_store(place.location).publish([draft("ttft", b"unsigned")])
    assert store.repair() is None
    trusted = store.publish([draft("ttft", b"good")])
    open_store(place.location).publish([draft("ttft", b"evil")])
    repaired = store.repair()
    assert repaired
    assert repaired.generation == store.current() == trusted
    assert store.repair() is None


def test_collecting_keeps_what_others_may_still_load(place: Place, keys: Keys) -> None:
    open_store(place.location).publish([draft("ttft", b"unsigned")])
    store = writer(place, keys)
    for _ in range(2):
        store.publish([draft()])
    assert store.collect(keep=3) == []
    assert open_store(place.location).rollback(1).generation == 1
    store.rollback(3)
    assert store.collect(keep=1) == [1, 2]
    assert not [name for name in place.names() if name in ("generation-1.sig", "generation-2.sig")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "no public key in PEM"), ("signing.key", "no public key"), (None, "can't read the key")],
)
def test_an_unusable_key_is_refused_at_once(tmp_path: Path, keys: Keys, content: str | None, reason: str) -> None:
    file = tmp_path / "wrong.pem"
    if content is not None:
        file.write_bytes(Path(keys.signing).read_bytes() if content else b"")
    with pytest.raises(StoreError, match=reason):
        open_store(str(tmp_path), Trust(verify_key_file=str(file)))


def test_a_missing_package_is_named(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(StoreError, match="install Headroom with its extra signing"):
        open_store(str(tmp_path), Trust(keys.signing))


def test_the_commands_make_keys_and_verify_a_store(tmp_path: Path) -> None:
    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "model_store", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    assert run("keygen", tmp_path).returncode == 0
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600
    assert "signing.key: File exists" in run("keygen", tmp_path).stderr
    place, verify = FolderPlace(tmp_path / "store"), ("--verify-key-file", tmp_path / "verify.pem")
    open_store(place.location).publish([draft()])
    pushed = place.another()
    assert run("push", place.location, pushed, "--signing-key-file", tmp_path / "signing.key").returncode == 0
    assert run("verify", pushed, *verify).returncode == 0
    result = run("verify", place.location, *verify)
    assert (result.returncode, "1  NOT TRUSTED" in result.stdout) == (1, True)
