"""The one command over the project's tools."""

import importlib.metadata
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from epp.flags import GoCommand
from headroom import __main__ as headroom
from serving.command import own_arguments
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
    missing = headroom._SUBCOMMANDS["calibrate"]._replace(module="no_such_package.here")
    monkeypatch.setattr(headroom, "_SUBCOMMANDS", {"calibrate": missing})
    done = CliRunner().invoke(headroom.main, ["calibrate"])
    assert done.exit_code == 1
    assert "needs the package no_such_package: pip install 'headroom[calibrate]'" in done.stderr


@pytest.mark.parametrize("command", sorted(headroom._SUBCOMMANDS))
def test_every_command_has_its_help(command: str) -> None:
    done = CliRunner().invoke(headroom.main, [command, "--help"], prog_name="headroom")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"Usage: headroom {command} ")


def test_the_version_is_that_of_the_distribution() -> None:
    done = CliRunner().invoke(headroom.main, ["--version"])
    assert done.stdout.split()[1] == importlib.metadata.version("headroom")


def test_an_unknown_command_ends_with_2() -> None:
    assert CliRunner().invoke(headroom.main, ["rout"]).exit_code == 2


def completed(words: str, index: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what bash would complete the word at `index` with."""
    for name, value in {"_HEADROOM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index)}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(headroom.main, prog_name="headroom")
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_names_of_commands_are_completed_without_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {name: part._replace(module="no_such_package.here") for name, part in headroom._SUBCOMMANDS.items()}
    with monkeypatch.context() as patch:
        patch.setattr(headroom, "_SUBCOMMANDS", missing)
        assert completed("headroom e", 1, patch) == ["epp", "evaluate", "explain"]
    assert "--url" in completed("headroom explain --u", 2, monkeypatch)


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_a_shell_gets_its_script(shell: str) -> None:
    done = CliRunner().invoke(headroom.main, ["completion", shell])
    assert f"_HEADROOM_COMPLETE={shell}_complete" in done.stdout


def test_a_servers_workers_get_its_own_arguments() -> None:
    @click.group()
    def program() -> None: ...

    @program.command(cls=GoCommand)
    @click.option("--port")
    def picker(port: str) -> None:
        click.echo(" ".join(own_arguments()))

    done = CliRunner().invoke(program, ["picker", "-port", "7"])
    assert done.stdout == "--port 7\n"
