"""The settings of the picker's benchmark, and the reasons for missing figures."""

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
# Errors of a process that ends early, or of a server that doesn't answer.
_FAILURES = (RuntimeError, OSError, psutil.Error, subprocess.SubprocessError)


@dataclass(frozen=True)
class Peer:
    """Another picker: the address of one that runs and knows the endpoints, or a command that starts one."""

    address: str = ""
    metrics_url: str = ""
    command: str = ""


@dataclass(frozen=True)
class Latency:
    """A model store with a trained generation, a predictor that serves it, and a trainer that accepts rows."""

    store: str
    prediction_url: str
    predictor: psutil.Process
    training_url: str


@contextmanager
def latency_servers(trees: int, depth: int) -> Iterator[Latency]:
    """Run a predictor and a trainer. The trainer never has enough rows, because a fit would disturb measurements."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = Generations(folder / "models", trees, depth).location
        flags = ["--model-store", str(folder / "unused"), "--min-samples-for-retrain", str(10**9)]
        training_url, _ = stack.enter_context(own_server("trainer", *flags))
        predictor = stack.enter_context(own_server("predictor", "--model-store", store, "--grpc-port", "0"))
        yield Latency(store, *predictor, training_url)


@dataclass(frozen=True)
class Bench:
    """The benchmark's settings. Every picker of this project gets `flags`, and `settle_s` before a measurement."""

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
        """Return the result of `measure`. If it fails, record why `figure` is missing, and return None."""
        try:
            return measure(*args, **kwargs)
        except _FAILURES as error:
            self.leave_out(figure, str(error))
            return None

    def leave_out(self, figure: str, reason: str) -> None:
        self.left_out[figure] = " ".join(reason.split())[:_LONGEST_REASON]
