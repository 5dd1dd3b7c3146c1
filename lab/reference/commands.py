"""The reference of the command `headroom`, docs/reference-commands.md, from the commands themselves."""

import inspect
from collections.abc import Iterator

import click

from headroom.__main__ import main
from lab.markdown import table
from simulator.load.__main__ import main as load

# configure.md has their flags, with the variables and the chart's keys.
_ELSEWHERE = ("epp", "trainer", "predictor")
_HEAD = """# All commands

With this page you can look up what each command does, its flags, and the variables that set them.

[configure.md](configure.md#one-command-headroom) says what to install for each of them, and has the flags of
`headroom epp`, `headroom trainer` and `headroom predictor`. A flag wins over its variable."""


def reference() -> str:
    """Return the reference."""
    context = click.Context(main, info_name="headroom")
    sections = [_HEAD]
    for name in main.list_commands(context):
        if name not in _ELSEWHERE:
            command = main.get_command(context, name)
            assert command, name
            sections += _sections(command, f"headroom {name}")
    sections += _sections(load, "python -m simulator.load")
    return "\n\n".join(sections) + "\n"


def _sections(command: click.Command, path: str) -> Iterator[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    arguments = [one.make_metavar(context) for one in command.params if isinstance(one, click.Argument)]
    yield f"## {path}"
    if arguments:
        yield f"    {path} {' '.join(arguments)}"
    yield _text(command.help or "")
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        head = ("flag", "variable", "default", "meaning")
        yield table(head, (_row(one, context) for one in options), is_text=True)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner, name
            yield from _sections(inner, f"{path} {name}")


def _row(option: click.Option, context: click.Context) -> tuple[str, str, str, str]:
    flags = ", ".join(f"`{flag}`" for flag in sorted((*option.opts, *option.secondary_opts), key=len))
    variable = _variable(option, context)
    return flags, f"`{variable}`" if variable else "", _default(option), _text(option.help or "").replace("|", "\\|")


def _variable(option: click.Option, context: click.Context) -> str:
    """Return the variable that sets the option: its own, or the one that the command's prefix gives it."""
    if isinstance(option.envvar, str):
        return option.envvar
    if context.auto_envvar_prefix and option.allow_from_autoenv and option.name:
        return f"{context.auto_envvar_prefix}_{option.name.upper()}"
    return ""


def _default(option: click.Option) -> str:
    """Return the default as `--help` writes it; empty where the text says it, or there is none."""
    if isinstance(option.show_default, str):
        return option.show_default
    value = option.to_info_dict()["default"]
    if value is None or value == () or callable(value) or (option.is_flag and not value):
        return ""
    values = value if isinstance(value, tuple | list) else (value,)
    return ", ".join(f"`{one}`" for one in values if str(one))


def _text(text: str) -> str:
    """Return the text as one would write it in Markdown: a placeholder such as <name> is no markup."""
    return inspect.cleandoc(text).replace("\b\n", "").replace("<", "&lt;")
