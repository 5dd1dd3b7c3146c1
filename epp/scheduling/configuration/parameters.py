"""Build a plugin from parameters of the configuration, environment variables and defaults."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from epp.exceptions import ConfigError
from epp.scheduling.plugin import Plugin

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Factor = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Count = Annotated[int, msgspec.Meta(ge=1)]

P = TypeVar("P", bound=Plugin)


def instantiate(
    cls: type[P], parameters: Mapping[str, Any], environ: Mapping[str, str], environ_first: bool = False
) -> P:
    """Build a plugin. Raise msgspec.ValidationError for wrong parameters, ConfigError for wrong variables."""
    _check_unsupported(cls, parameters)
    from_environ = {
        parameter: _from_environ(cls, parameter, variable, environ[variable])
        for variable, parameter in cls.environment.items()
        if environ.get(variable, "").strip()
    }
    given = {**parameters, **from_environ} if environ_first else {**from_environ, **parameters}
    return msgspec.convert(given, cls)


def defaults(cls: type[Plugin]) -> dict[str, Any]:
    """Return the default of each parameter by name; msgspec.NODEFAULT for a required parameter."""
    return {
        field.encode_name: field.default_factory() if callable(field.default_factory) else field.default
        for field in msgspec.structs.fields(cls)
    }


def _check_unsupported(cls: type[Plugin], parameters: Mapping[str, Any]) -> None:
    known = defaults(cls) if cls.unsupported else {}
    for parameter, reason in cls.unsupported.items():
        if parameter in parameters and parameters[parameter] != known[parameter]:
            raise msgspec.ValidationError(f"{reason} - at `$.{parameter}`")


def _from_environ(cls: type[Plugin], parameter: str, variable: str, text: str) -> Any:
    try:
        plugin = msgspec.convert({parameter: text.strip()}, cls, strict=False)
        field = next(field for field in msgspec.structs.fields(cls) if field.encode_name == parameter)
        value = getattr(plugin, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("expected a finite number")
    except ValueError as error:
        problem = str(error).partition(" - at ")[0]
        raise ConfigError(f"environment variable {variable}={text!r}: {problem}") from error
    return value
