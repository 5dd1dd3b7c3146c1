"""How scheduling is extended: a plugin is a struct whose fields are its parameters, registered under a type name.

Parameters are read strictly, in camelCase. A package makes its plugins known by an entry point in the group
`headroom.plugins` that names the module to import. docs/extend.md shows a whole one.
"""

import functools
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self, TypeVar

import msgspec
import numpy as np

from epp.exceptions import ConfigError
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Endpoint, Floats, Indices, Snapshot

ENTRY_POINTS = "headroom.plugins"


class Plugin(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, dict=True):
    """The base of every plugin.

    `environment` maps variables to the parameters that they give a default for. `producers` maps parameters that name
    another declared plugin to the type which that must have. `unsupported` maps parameters that are known, but must
    stay as they are by default, to the reason. What a plugin keeps between requests goes into its `__dict__`, by
    functools.cached_property for one. A `__post_init__` that raises ValueError refuses parameters.
    """

    type_name: ClassVar[str] = ""
    environment: ClassVar[Mapping[str, str]] = {}
    producers: ClassVar[Mapping[str, str]] = {}
    unsupported: ClassVar[Mapping[str, str]] = {}

    @property
    def needs_predictions(self) -> bool:
        """Whether decisions that this takes part in should wait for predicted latencies."""
        return False

    @property
    def needs_costs(self) -> bool:
        """Whether this reads what models say prompts cost on endpoints: `prefill_ms_per_token` and the like."""
        return False

    @property
    def notices(self) -> Sequence[str]:
        """What an operator should know of these parameters: which of them do nothing here, and why."""
        return ()

    def bound(self, declared: Sequence["Plugin"]) -> Self:
        """This plugin, completed by what the others that are declared say."""
        return self

    def response_headers(self, endpoint: Endpoint) -> Mapping[str, str]:
        """What to add to the response when this plugin's profile has sent the request to `endpoint`."""
        return {}


class Filter(Plugin, frozen=True):
    """Keeps some of the candidates."""

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        """True where a candidate stays; shape [candidates]."""
        raise NotImplementedError


class Scorer(Plugin, frozen=True):
    """Scores every candidate between 0 (worst) and 1 (best)."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        """Scores of shape [candidates]; they are clipped to [0, 1] before they are weighted."""
        raise NotImplementedError

    def decided(self, request: Request, candidates: Snapshot, chosen: int) -> None:
        """Called when this scorer's profile has decided for the candidate at `chosen`."""


class Picker(Plugin, frozen=True):
    """Turns total scores into an ordered choice."""

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        """Indices of the chosen candidates, best first; at least one."""
        raise NotImplementedError


class ProfileHandler(Plugin, frozen=True):
    """Decides which profile serves a request."""

    def choose(self, request: Request, profiles: Sequence[str]) -> str:
        raise NotImplementedError

    def fallback(self, wanted: str, profiles: Sequence[str]) -> str:
        """The profile for a decision that `wanted` should have made with predictions, and that got none."""
        raise NotImplementedError

    def check(self, profiles: Sequence[str]) -> None:
        """Raises ValueError when it can't work with these profiles."""


class Admitter(Plugin, frozen=True):
    """Decides whether a request is served at all; those of every declared admitter are asked, before any profile."""

    def admit(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
        """Why the request is shed; None when it may go on. By custom only those with a priority below 0 are shed."""
        raise NotImplementedError


class Marker(Plugin, frozen=True):
    """A type that configurations may name, and whose work the picker does for every request anyway."""


KINDS = {
    "filter": Filter,
    "scorer": Scorer,
    "picker": Picker,
    "profile handler": ProfileHandler,
    "admitter": Admitter,
    "marker": Marker,
}

P = TypeVar("P", bound=Plugin)
_registry: dict[str, type[Plugin]] = {}


def plugin(type_name: str, *aliases: str) -> Callable[[type[P]], type[P]]:
    """Registers a plugin class under the type that configurations name it by, and other names for it."""

    def register(cls: type[P]) -> type[P]:
        for name in (type_name, *aliases):
            if name in _registry:
                raise ValueError(f"plugin type {name!r} is registered twice")
            _registry[name] = cls
        cls.type_name = type_name
        return cls

    return register


def plugin_types() -> Mapping[str, type[Plugin]]:
    """Every known plugin type, those of installed packages included; ConfigError when such a package can't be used."""
    _load_packages()
    return _registry


@functools.cache
def _load_packages() -> None:
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry_point.load()
        except Exception as error:
            raise ConfigError(
                f"the plugins of entry point {entry_point.name!r} ({entry_point.value}) can't be loaded: {error!r}"
            ) from error


def kind_names(cls: type[Plugin]) -> list[str]:
    """What a plugin class is, in words."""
    return [name for name, kind in KINDS.items() if issubclass(cls, kind)]
