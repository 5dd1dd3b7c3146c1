"""Learn the name of the pool's base model, which servers take for a request that names no model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from epp.scheduling.snapshot import Adapters


@dataclass(slots=True)
class BaseModel:
    """The first model that a server has served, unless servers report that it is an adapter.

    `adapters` returns the servers' adapters, as last scraped.
    """

    adapters: Callable[[], Iterable[Adapters]] = tuple
    _name: str = ""

    @property
    def name(self) -> str:
        """The name, or an empty text as long as it isn't known."""
        if self._is_adapter(self._name):
            self._name = ""
        return self._name

    def served(self, model: str) -> None:
        """Take in that a server has answered a request for this model with success."""
        if not self._name and not self._is_adapter(model):
            self._name = model

    def _is_adapter(self, model: str) -> bool:
        return any(model in each.active or model in each.waiting for each in self.adapters())
