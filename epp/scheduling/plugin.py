"""The base classes and the registry of plugins. A plugin is a struct whose fields are its parameters.

Parameters are read strictly, in camelCase. A package offers plugins by an entry point in the group `headroom.plugins`,
which names the module to import. docs/extend.md shows a complete package.
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

    `environment` maps each environment variable to the parameter whose default the variable sets.
    `producers` maps each parameter that names another declared plugin to the required type of that plugin.
    `unsupported` maps each parameter that must keep its default to the reason.
    A plugin keeps state between requests in its `__dict__`, for example by functools.cached_property.
    A `__post_init__` that raises ValueError refuses the parameters.
    """

    type_name: ClassVar[str] = ""
    environment: ClassVar[Mapping[str, str]] = {}
    producers: ClassVar[Mapping[str, str]] = {}
    unsupported: ClassVar[Mapping[str, str]] = {}

    @property
    def needs_predictions(self) -> bool:
        """True if decisions that use this plugin should wait for predicted latencies."""
        return False

    @property
    def needs_costs(self) -> bool:
        """True if this plugin reads costs that the models predict for endpoints, such as `prefill_ms_per_token`."""
        return False

    @property
    def notices(self) -> Sequence[str]:
        """Sentences that tell the operator which parameters have no effect, and why."""
        return ()

    def bound(self, declared: Sequence["Plugin"]) -> Self:
        """Return this plugin with the settings that other declared plugins provide."""
        return self

    def response_headers(self, endpoint: Endpoint) -> Mapping[str, str]:
        """Return headers to add to the response when this plugin's profile has sent the request to `endpoint`."""
        return {}


class Filter(Plugin, frozen=True):
    """Keeps some of the candidates."""

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        """Return a mask of shape [candidates], True where a candidate stays."""
        raise NotImplementedError


class Scorer(Plugin, frozen=True):
    """Scores every candidate between 0 (worst) and 1 (best)."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        """Return scores of shape [candidates]; scores are clipped to [0, 1] before weights apply."""
        raise NotImplementedError

    def decided(self, request: Request, candidates: Snapshot, chosen: int) -> None:
        """Take note that this scorer's profile has chosen the candidate at index `chosen`."""


class Picker(Plugin, frozen=True):
    """Turns total scores into an ordered choice."""

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        """Return the indices of the chosen candidates, best first; at least one."""
        raise NotImplementedError


class ProfileHandler(Plugin, frozen=True):
    """Decides which profile serves a request."""

    def choose(self, request: Request, profiles: Sequence[str]) -> str:
        raise NotImplementedError

    def fallback(self, wanted: str, profiles: Sequence[str]) -> str:
        """Return the profile to use instead of `wanted` when `wanted` needs predictions and there are none."""
        raise NotImplementedError

    def check(self, profiles: Sequence[str]) -> None:
        """Raise ValueError when the handler can't work with these profiles."""


class Admitter(Plugin, frozen=True):
    """Decides whether a request is served at all. Every declared admitter is asked, before any profile runs."""

    def admit(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
        """Return why the request is shed; None admits it. By custom, only requests of a priority below 0 are shed."""
        raise NotImplementedError


class Marker(Plugin, frozen=True):
    """A type that configurations may name, although the picker does its work for every request anyway."""


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
    """Register a plugin class under the type name that configurations use, and under aliases."""

    def register(cls: type[P]) -> type[P]:
        for name in (type_name, *aliases):
            if name in _registry:
                raise ValueError(f"plugin type {name!r} is registered twice")
            _registry[name] = cls
        cls.type_name = type_name
        return cls

    return register


def plugin_types() -> Mapping[str, type[Plugin]]:
    """Return every known plugin type, including those of installed packages.

    Raise ConfigError when an installed package of plugins can't be loaded.
    """
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
    """Return the names of the plugin kinds that the class belongs to."""
    return [name for name, kind in KINDS.items() if issubclass(cls, kind)]
