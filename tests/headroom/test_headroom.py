"""The one command over the project's tools."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from headroom import __main__ as headroom
from tests.live import PATIENCE_S


def test_commands_are_imported_when_they_are_called() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from headroom.__main__ import main;"
        "done = CliRunner().invoke(main, ['--help']); assert 'calibrate' in done.output, done.output;"
        "assert 'lab' not in sys.modules;"
        "done = CliRunner().invoke(main, ['calibrate', '--help']); assert 'URL' in done.output, done.output;"
        "assert 'lab' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "_COMMANDS", {"calibrate": ("no_such_package.here", "main", "")})
    done = CliRunner().invoke(headroom.main, ["calibrate"])
    assert done.exit_code == 1
    assert "needs the package no_such_package: pip install 'headroom[calibrate]'" in done.stderr
