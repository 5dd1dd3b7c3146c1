"""How scheduling is extended: a plugin is a struct whose fields are its parameters, registered under a type name.

    @plugin("idle-scorer")
    class IdleScorer(Scorer):
        exponent: float = 1.0

        def score(self, request, pool, rng):
            return 1 / (1 + pool.running) ** self.exponent

Parameters are read strictly, in camelCase. A package makes its plugins known by an entry point in the group
`headroom.plugins` that names the module to import.
"""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

import msgspec
import numpy as np

from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Floats, Indices, Snapshot

ENTRY_POINTS = "headroom.plugins"


class Plugin(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The base of every plugin. `environment` maps variables to the parameters that they give a default for."""

    environment: ClassVar[Mapping[str, str]] = {}
    needs_predictions: ClassVar[bool] = False


class Filter(Plugin, frozen=True):
    """Keeps some of the candidates."""

    def keep(self, request: Request, pool: Snapshot) -> Bools:
        """True where a candidate stays; shape [candidates]."""
        raise NotImplementedError


class Scorer(Plugin, frozen=True):
    """Scores every candidate between 0 (worst) and 1 (best)."""

    def score(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Floats:
        """Scores of shape [candidates]; they are clipped to [0, 1] before they are weighted."""
        raise NotImplementedError


class Picker(Plugin, frozen=True):
    """Turns total scores into an ordered choice."""

    max_num_of_endpoints: int = 1

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        """Indices of the chosen candidates, best first; at least one, at most `max_num_of_endpoints`."""
        raise NotImplementedError


class ProfileHandler(Plugin, frozen=True):
    """Decides which profile serves a request."""

    def choose(self, request: Request, profiles: Sequence[str]) -> str:
        raise NotImplementedError

    def fallback(self, profiles: Sequence[str]) -> str:
        """The profile for a decision that should have had predictions, and got none."""
        raise NotImplementedError

    def check(self, profiles: Sequence[str]) -> None:
        """Raises ValueError when it can't work with these profiles."""


class Marker(Plugin, frozen=True):
    """A type that configurations may name, and whose work the picker does for every request anyway."""


P = TypeVar("P", bound=Plugin)
_registry: dict[str, type[Plugin]] = {}


def plugin(type_name: str) -> Callable[[type[P]], type[P]]:
    """Registers a plugin class under the type that configurations name it by."""

    def register(cls: type[P]) -> type[P]:
        if type_name in _registry:
            raise ValueError(f"plugin type {type_name!r} is registered twice")
        _registry[type_name] = cls
        return cls

    return register


def registered() -> Mapping[str, type[Plugin]]:
    """Every known plugin type, those of installed packages included."""
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry_point.load()
    return _registry
