"""The priorities of InferenceObjectives."""

from collections.abc import Mapping


class Objectives:
    """Priorities by the name of the InferenceObjective; requests of a priority below 0 may be shed."""

    def __init__(self) -> None:
        self._priorities: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._priorities)

    @property
    def known(self) -> Mapping[str, int]:
        return self._priorities

    def label_of(self, name: str) -> str:
        """Return the metric label of an objective's name: the name itself, or empty for an unknown name."""
        return name if name in self._priorities else ""

    def replace(self, priorities: Mapping[str, int]) -> None:
        """Replace all known objectives."""
        self._priorities = dict(priorities)

    def priority_of(self, name: str) -> int:
        """Return the priority of an objective. An unknown name has 0, or -1 if it contains `sheddable`."""
        return self._priorities.get(name, -1 if "sheddable" in name else 0)
