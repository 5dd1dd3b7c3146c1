"""What all parts of the benchmark share: the settings, and what was left out and why."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil

from lab.bench.predictor.store import Generations
from lab.bench.trainer.serving import own_server

Figures = dict[str, float]
P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_REASON = 400
# What a process that ends early, or a server that doesn't answer, looks like from here.
_FAILURES = (RuntimeError, OSError, psutil.Error, subprocess.SubprocessError)


@dataclass(frozen=True)
class Peer:
    """Another picker: one that runs and knows the endpoints, by address, or a command that starts one for a setting."""

    address: str = ""
    metrics_url: str = ""
    command: str = ""


@dataclass(frozen=True)
class Latency:
    """A model store with a trained generation, a predictor that serves it, and a trainer that takes rows in."""

    store: str
    prediction_url: str
    predictor: psutil.Process
    training_url: str


@contextmanager
def latency_servers(trees: int, depth: int) -> Iterator[Latency]:
    """The trainer never has enough rows to fit: it would weigh on what is measured."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = Generations(folder / "models", trees, depth).location
        flags = ["--model-store", str(folder / "unused"), "--min-samples-for-retrain", str(10**9)]
        training_url, _ = stack.enter_context(own_server("trainer", *flags))
        predictor = stack.enter_context(own_server("predictor", "--model-store", store, "--grpc-port", "0"))
        yield Latency(store, *predictor, training_url)


@dataclass(frozen=True)
class Bench:
    """`flags` are given to every picker of this project; `settle_s` is what each gets before it is measured."""

    seconds: float
    rounds: int
    latency: Latency
    settle_s: float = 2.0
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
        except _FAILURES as error:
            self.leave_out(figure, str(error))
            return None

    def leave_out(self, figure: str, reason: str) -> None:
        self.left_out[figure] = " ".join(reason.split())[:_LONGEST_REASON]
