"""Command-line values in the form of Go's flag package, because charts and manifests pass them so."""

import re
from collections.abc import Sequence
from typing import Any

import click

from serving.command import ServerCommand

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SINGLE_DASH = re.compile(r"-[a-z][a-z0-9-]+(=.*)?", re.DOTALL)


class Duration(click.ParamType[float]):
    """A Go duration such as `50ms` or `1m30s`, converted to seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        parts = list(_PART.finditer(text))
        if not parts or "".join(part[0] for part in parts) != text:
            self.fail(f"{text!r} is not a duration such as 50ms, 2s or 1m30s", param, ctx)
        return sum(float(part[1]) * _UNIT_S[part[2]] for part in parts)


class DurationRange(click.ParamType[tuple[float, float]]):
    """A Go duration, or two joined by a dash: `50ms` or `50ms-500ms`, converted to the two bounds in seconds."""

    name = "duration or range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        least, dash, most = str(value).partition("-")
        least_s, most_s = (Duration().convert(text, param, ctx) for text in (least, most if dash else least))
        if least_s > most_s:
            self.fail(f"{value!r}: the first bound is longer than the second", param, ctx)
        return least_s, most_s


class GoCommand(ServerCommand):
    """A command that takes its flags with one dash, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, double_dashes(args))


def double_dashes(arguments: Sequence[str]) -> list[str]:
    """Return `arguments` with two dashes before each name. Go accepts one dash or two; click only two."""
    return [f"-{argument}" if _SINGLE_DASH.fullmatch(argument) else argument for argument in arguments]
