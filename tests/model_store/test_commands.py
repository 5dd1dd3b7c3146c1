import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from model_store import open_store
from model_store.__main__ import main
from tests.live import PATIENCE_S
from tests.model_store.drafts import draft, flipped, in_force
from tests.model_store.places import BucketPlace, Place
from tests.model_store.s3_server import S3Server


def run(*arguments: object) -> Result:
    """Run the command in this process. A process of its own would import boto3 anew."""
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def printed(*arguments: object) -> str:
    """Return what the command prints in a process of its own."""
    command = [sys.executable, "-m", "model_store", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


def damage(place: Place, name: str) -> None:
    place.write(name, flipped(place.read(name)))


@pytest.fixture
def store(place: Place) -> str:
    """The location of a store with three generations."""
    opened = open_store(place.location)
    for content in (b"one", b"two", b"three"):
        opened.publish([draft("ttft", content), draft("tpot", content)])
    return place.location


def test_ls_marks_the_generation_in_force(store: str) -> None:
    lines = printed("ls", store).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "*"]
    assert "ttft/3" in lines[-1]


def test_show_prints_a_manifest(store: str) -> None:
    assert json.loads(run("show", store, "ttft").stdout)["version"] == 3
    assert json.loads(run("show", store, "tpot", "--generation", 1).stdout)["version"] == 1


def test_verify_finds_a_damaged_model(store: str, place: Place) -> None:
    assert run("verify", store).exit_code == 0
    damage(place, "tpot/2/model.onnx")
    result = run("verify", store)
    assert result.exit_code == 1
    assert [line.split()[1] for line in result.stdout.splitlines() if "DAMAGED" in line] == ["tpot/2"]


def test_rollback_moves_the_pointer_unless_the_target_is_damaged(store: str, place: Place) -> None:
    assert run("rollback", store, 1).exit_code == 0
    assert in_force(open_store(store)).generation == 1
    damage(place, "tpot/2/model.onnx")
    result = run("rollback", store, 2)
    assert (result.exit_code, "tpot/2" in result.stderr) == (1, True)


def test_gc_removes_the_oldest(store: str) -> None:
    assert "removed 2 generations: 1, 2" in run("gc", store, "--keep", 1).stdout
    assert open_store(store).generations() == [3]


@pytest.mark.parametrize("command", ["push", "pull"])
@pytest.mark.parametrize("to", ["the same kind", "a folder"])
def test_a_generation_is_copied_to_another_store(
    store: str, place: Place, tmp_path: Path, command: str, to: str
) -> None:
    other = place.another() if to == "the same kind" else str(tmp_path / "other")
    ends = (store, other) if command == "push" else (other, store)
    assert run(command, *ends, "--generation", 2).exit_code == 0
    opened = open_store(other)
    assert opened.read(in_force(opened), "ttft").onnx == b"two"


def test_push_copies_a_folders_generation_to_a_bucket(bucket: BucketPlace, tmp_path: Path) -> None:
    open_store(str(tmp_path)).publish([draft(onnx=b"from a folder")])
    assert "is generation 1 of s3://" in run("push", tmp_path, bucket.location).stdout
    opened = open_store(bucket.location)
    assert opened.read(in_force(opened), "ttft").onnx == b"from a folder"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ls", "{}/absent"], "holds no generation"),
        (["show", "{}", "colour"], "has no model 'colour'"),
        (["rollback", "{}", "9"], "generation-9"),
        (["ls", "ftp://x"], "only folders"),
    ],
)
def test_an_error_is_reported_in_one_line(store: str, arguments: list[str], expected: str) -> None:
    result = run(*(argument.format(store) for argument in arguments))
    assert result.exit_code == 1
    assert expected in result.stderr


@pytest.mark.parametrize(
    "arguments", [("ls",), ("show", "ttft"), ("verify",), ("rollback", 1), ("gc",), ("push", "s3://absent/other")]
)
def test_a_missing_bucket_is_reported_in_one_line(s3: S3Server, arguments: tuple[object, ...]) -> None:
    command, *rest = arguments
    result = run(command, "s3://absent/models", *rest)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: model store s3://absent/models: there is no bucket 'absent'; create it\n"


def test_the_help_says_what_a_store_is() -> None:
    assert "STORE is a folder, or s3://bucket/prefix" in printed("--help")
