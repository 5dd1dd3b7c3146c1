"""Command-line values in the form of Go's flag package, because charts and manifests pass them so."""

import re
from collections.abc import Sequence
from typing import Any

import click

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


def double_dashes(arguments: Sequence[str]) -> list[str]:
    """Return `arguments` with two dashes before each name. Go accepts one dash or two; click only two."""
    return [f"-{argument}" if _SINGLE_DASH.fullmatch(argument) else argument for argument in arguments]
