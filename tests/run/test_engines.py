"""The choice of the tests with vLLM: never by accident, alone when asked for, and told where they are left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run import engines

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (["--engines"], ["--engines", "tests/engines"]),
        (["--engines-if-installed"], ["--engines", "tests/engines"]),
        (["--engines", "-k", "abort"], ["--engines", "-k", "abort", "tests/engines"]),
        (["--engines", "tests/engines/test_aborts.py::test"], ["--engines", "tests/engines/test_aborts.py::test"]),
    ],
)
def test_only_tests_with_vllm_are_run(asked: list[str], given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert engines.is_asked(asked)
    assert engines.only_with_engines(asked) == given


def test_a_plain_run_collects_none(request: pytest.FixtureRequest) -> None:
    assert not engines.is_asked([])
    assert engines.pytest_ignore_collect(ROOT / "tests" / "engines", request.config)
    assert engines.pytest_ignore_collect(ROOT / "tests" / "epp", request.config) is None


def test_a_machine_without_vllm_says_that_they_are_left_out(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.run", "--engines-if-installed"]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == engines.LEFT_OUT
