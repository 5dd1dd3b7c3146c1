"""What all parts of the benchmark share: the settings, and what was left out and why."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

Figures = dict[str, float]
P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_REASON = 400


@dataclass(frozen=True)
class Peer:
    """Another picker: one that runs and knows the endpoints, by address, or a command that starts one for a setting."""

    address: str = ""
    metrics_url: str = ""
    command: str = ""


@dataclass(frozen=True)
class Bench:
    """`store` is a model store with a trained generation. `flags` are given to every picker of this project."""

    seconds: float
    rounds: int
    store: str
    peer: Peer | None = None
    flags: tuple[str, ...] = ()
    endpoints: int = 100
    large_endpoints: int = 1000
    first_port: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    def attempt(self, figure: str, measure: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What `measure` finds; None when it can't, and then `figure` is left out."""
        try:
            return measure(*args, **kwargs)
        except RuntimeError as error:
            self.leave_out(figure, str(error))
            return None

    def leave_out(self, figure: str, reason: str) -> None:
        self.left_out[figure] = " ".join(reason.split())[:_LONGEST_REASON]
