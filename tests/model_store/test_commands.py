import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_store import open_store
from tests.model_store.test_folder import draft, flip


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "model_store", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    opened = open_store(str(tmp_path))
    for content in (b"one", b"two", b"three"):
        opened.publish([draft("ttft", content), draft("tpot", content)])
    return tmp_path


def test_the_generations_are_listed_and_the_one_in_force_marked(store: Path) -> None:
    lines = run("ls", store).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "*"]
    assert "ttft/3" in lines[-1]


def test_a_manifest_is_shown(store: Path) -> None:
    assert json.loads(run("show", store, "ttft").stdout)["version"] == 3
    assert json.loads(run("show", store, "tpot", "--generation", 1).stdout)["version"] == 1


def test_verify_finds_what_is_damaged(store: Path) -> None:
    assert run("verify", store).returncode == 0
    flip(store / "tpot" / "2" / "model.onnx")
    result = run("verify", store)
    assert result.returncode == 1
    assert [line.split()[1] for line in result.stdout.splitlines() if "DAMAGED" in line] == ["tpot/2"]


def test_rollback_moves_the_pointer_unless_the_goal_is_damaged(store: Path) -> None:
    assert run("rollback", store, 1).returncode == 0
    current = open_store(str(store)).current()
    assert current
    assert current.generation == 1
    flip(store / "tpot" / "2" / "model.onnx")
    result = run("rollback", store, 2)
    assert (result.returncode, "tpot/2" in result.stderr) == (1, True)


def test_gc_removes_the_oldest(store: Path) -> None:
    assert "removed 2 generations: 1, 2" in run("gc", store, "--keep", 1).stdout
    assert open_store(str(store)).generations() == [3]


@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_generation_is_copied_to_another_store(store: Path, tmp_path: Path, command: str) -> None:
    other = tmp_path / "other"
    ends = (store, other) if command == "push" else (other, store)
    assert run(command, *ends, "--generation", 2).returncode == 0
    opened = open_store(str(other))
    current = opened.current()
    assert current
    assert opened.read(current, "ttft").onnx == b"two"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ls", "{}/absent"], "holds no generation"),
        (["show", "{}", "colour"], "has no model 'colour'"),
        (["rollback", "{}", "9"], "generation-9"),
        (["ls", "ftp://x"], "only folders"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(store: Path, arguments: list[str], expected: str) -> None:
    result = run(*(argument.format(store) for argument in arguments))
    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
