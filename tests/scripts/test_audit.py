import subprocess
from pathlib import Path

import pytest

from scripts.audit import CLEAN, UNKNOWN, WEAK, audit, judge

SOUND = {"name": "click", "version": "8.5.1", "vulns": []}
SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited"}
FOUND = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
BROKEN = {"name": "anyio", "version": "1.0", "vulns": [FOUND]}


def test_sound_packages_are_clean() -> None:
    assert judge({"dependencies": [SOUND]}) == (CLEAN, ["1 packages, no known weakness"])


def test_a_weakness_is_named_with_its_remedy() -> None:
    status, lines = judge({"dependencies": [SOUND, BROKEN, SKIPPED]})
    assert status == WEAK
    assert lines[0] == "anyio 1.0: PYSEC-1, CVE-1; fixed in 2.0"
    assert "numpy" in lines[1]


@pytest.mark.parametrize("packages", [[SOUND, SKIPPED], []])
def test_a_package_without_an_answer_is_not_called_clean(packages: list[object]) -> None:
    status, (line,) = judge({"dependencies": packages})
    assert status == UNKNOWN
    assert line.startswith("not audited")


def test_an_auditor_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: object, **settings: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], 1, "", "Traceback\nConnectionError: no route")

    monkeypatch.setattr(subprocess, "run", fail)
    status, (line,) = audit(Path("some.lock"), "pypi")
    assert status == UNKNOWN
    assert "can't be reached: ConnectionError: no route" in line
