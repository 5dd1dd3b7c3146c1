"""What the requests' objectives are worth."""

from collections.abc import Mapping


class Objectives:
    """Priorities by the name of the InferenceObjective; what is below 0 may be shed."""

    def __init__(self) -> None:
        self._priorities: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._priorities)

    @property
    def known(self) -> Mapping[str, int]:
        return self._priorities

    def label_of(self, name: str) -> str:
        """How a name that a request gives appears in metrics: only as one that is known."""
        return name if name in self._priorities else ""

    def replace(self, priorities: Mapping[str, int]) -> None:
        """Makes these the objectives that are known."""
        self._priorities = dict(priorities)

    def priority_of(self, name: str) -> int:
        """0 for a name that is not known, but -1 if it says that it is sheddable."""
        return self._priorities.get(name, -1 if "sheddable" in name else 0)
