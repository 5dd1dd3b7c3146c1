"""`headroom`: one command over the project's tools. Each is imported only when called: some need many packages."""

from collections.abc import Mapping
from importlib import import_module

import click

# The module and the name of each command, and its line in --help.
_COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "calibrate": (
        "lab.calibration.server.command",
        "calibrate",
        "Measure a running vLLM server, and write a calibration for the simulator.",
    ),
    "seed": ("lab.cold_start.seed", "seed", "Publish models of a simulated pool, to predict from the first request."),
}
# The packages that a command needs beside those of every installation.
_EXTRAS: Mapping[str, str] = {"calibrate": "calibrate", "seed": "demo"}


class LazyGroup(click.Group):
    """A group of commands whose modules are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        try:
            command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            extra = _EXTRAS[cmd_name]
            raise click.ClickException(
                f"headroom {cmd_name} needs the package {error.name}: pip install 'headroom[{extra}]'"
            ) from error
        assert isinstance(command, click.Command)  # noqa: S101 (the table names commands)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in sorted(_COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """SLO-aware routing for pools of LLM servers."""


if __name__ == "__main__":
    main(prog_name="headroom")
