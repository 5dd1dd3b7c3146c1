"""`headroom`: one command over the project's parts. Each is imported only when called: some need many packages."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem


class _Subcommand(NamedTuple):
    """Where a command is, the extra that brings the packages it needs, and its line in --help."""

    module: str
    name: str
    extra: str
    line: str


_SUBCOMMANDS: Mapping[str, _Subcommand] = {
    "calibrate": _Subcommand(
        "lab.calibration.server.command", "calibrate", "calibrate", "Measure a running vLLM server for the simulator."
    ),
    "check": _Subcommand("epp.check", "check", "epp", "Check a plugin configuration, and say what it means."),
    "completion": _Subcommand(
        "headroom.completion", "completion", "", "Print a shell's script that completes commands."
    ),
    "demo": _Subcommand("lab.loop.__main__", "main", "demo", "Run everything on this machine, and compare policies."),
    "epp": _Subcommand("epp.__main__", "main", "epp", "Run the endpoint picker."),
    "evaluate": _Subcommand(
        "lab.evaluation.__main__", "main", "demo", "Compare policies on workloads, in virtual time."
    ),
    "explain": _Subcommand("headroom.explain", "explain", "", "Say why a request went where it went."),
    "look": _Subcommand(
        "headroom.servers.command", "look", "up", "Look at model servers, and say what to change in them."
    ),
    "predictor": _Subcommand("predictor.__main__", "main", "predictor", "Run a prediction server."),
    "report": _Subcommand(
        "headroom.report.command", "report", "report", "Say how requests fared, and what they would gain."
    ),
    "seed": _Subcommand(
        "lab.cold_start.seed", "seed", "demo", "Publish models of a simulated pool, for the first request."
    ),
    "simulator": _Subcommand("simulator.__main__", "main", "simulator", "Run a simulated vLLM server."),
    "store": _Subcommand("model_store.__main__", "main", "", "Look into a model store, and change it."),
    "up": _Subcommand("headroom.up.command", "up", "up", "Route by prediction in front of servers that run already."),
    "trainer": _Subcommand("trainer.__main__", "main", "trainer", "Run the training server."),
}


class _Subcommands(click.Group):
    """A group of commands whose modules are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        part = _SUBCOMMANDS.get(cmd_name)
        if part is None:
            return None
        try:
            command = getattr(import_module(part.module), part.name)
        except ModuleNotFoundError as error:
            wanted = f"headroom[{part.extra}]" if part.extra else "headroom"
            raise click.ClickException(
                f"headroom {cmd_name} needs the package {error.name}: pip install '{wanted}'"
            ) from error
        assert isinstance(command, click.Command)  # noqa: S101 (the table names commands)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands without importing them."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=part.line) for name, part in _SUBCOMMANDS.items() if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, part.line) for name, part in sorted(_SUBCOMMANDS.items())])


@click.group(cls=_Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("headroom"), message="%(prog)s %(version)s")
def main() -> None:
    """SLO-aware routing for pools of LLM servers.

    Each command says more with --help. The exit status is 0 for success, 1 for a failure that stderr explains, and 2
    for arguments that can't be used.
    """


if __name__ == "__main__":
    main(prog_name="headroom")
