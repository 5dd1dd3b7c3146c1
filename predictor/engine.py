"""The models in service. Replacing one reference swaps all of them, and a request keeps the models it began with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from model_store import Generation
from predictor.exceptions import NotLoadedError
from predictor.model import Model
from predictor.statistics import Statistics
from predictor.versions import LATEST, VersionPolicy


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A model's loaded versions.

    `generation` is the one in force when they were loaded, or None for a model from a plain Triton folder.
    """

    default: Model
    versions: Mapping[int, Model]
    generation: Generation | None = None
    policy: VersionPolicy = LATEST
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def provenance(generation: Generation | None) -> dict[str, int | float | None]:
    """Return the answer's fields on a model's origin: generation and age in seconds, null for a plain Triton folder."""
    number, age_s = (generation.generation, round(generation.age_s, 3)) if generation else (None, None)
    return {"generation": number, "generation_age_s": age_s}


class Engine:
    """The served models by name. A reader that takes `models` once sees one state of all models."""

    def __init__(self) -> None:
        self.models: Mapping[str, Served] = {}
        self.totals: dict[str, Statistics] = {}

    def find(self, name: str, version: int | None = None) -> Model:
        """Return a version of a model, by default the newest; raise NotLoadedError that lists the loaded ones."""
        served = self.served_model(name)
        if version is None:
            return served.default
        if version not in served.versions:
            known = ", ".join(map(str, sorted(served.versions)))
            raise NotLoadedError(f"no version {version} of model {name!r}; loaded: {known}", any_loaded=True)
        return served.versions[version]

    def served_model(self, name: str) -> Served:
        models = self.models
        found = models.get(name)
        if found is None and models:
            raise NotLoadedError(f"no model {name!r}; loaded: {', '.join(sorted(models))}", any_loaded=True)
        if found is None:
            raise NotLoadedError("no model is loaded yet: nothing has been published in the model store", False)
        return found

    def swap(self, models: Mapping[str, Served | None]) -> None:
        """Replace the models of these names; None removes a model. Call this only on the event loop."""
        merged = {name: served for name, served in self.models.items() if name not in models}
        for name, served in models.items():
            if served:
                merged[name] = served
                self.totals.setdefault(name, Statistics())
        self.models = merged

    @property
    def generation(self) -> Generation | None:
        """The newest generation that any model was loaded from."""
        generations = [served.generation for served in self.models.values() if served.generation]
        return max(generations, key=lambda g: g.published_at, default=None)
