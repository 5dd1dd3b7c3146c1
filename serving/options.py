"""Command-line options of a server, which environment variables may set too."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def option(flag: str, variable: str | list[str], default: Any, kind: Any, text: str, **more: Any) -> Callable[[F], F]:
    """Return the decorator that adds a flag.

    `variable` names the flag's environment variables; the first one that is set counts. `kind` is the type of the
    value, `text` stands in --help, and `more` are further settings of click.option.
    """
    return click.option(flag, default=default, type=kind, envvar=variable, show_envvar=True, help=text, **more)
