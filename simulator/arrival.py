"""The input of a replay in virtual time: requests with objectives, endpoints, and changes of the endpoints' speed."""

from dataclasses import dataclass

from simulator.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of a replay in virtual time.

    `hashes` are ids of the prompt's leading whole pieces. A piece has the scenario's `hash_tokens` tokens. Equal ids
    mean equal prompts up to and including that piece. `hashes` is empty where no prompts share a prefix.
    """

    index: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    hashes: tuple[int, ...]
    slo_class: str
    slo_ttft_ms: float
    slo_tpot_ms: float


@dataclass(frozen=True, slots=True)
class Change:
    """A change of speed: from `at_s` on, the endpoint's steps take `slowdown` times as long as its hardware's.

    A step in progress ends at its old speed. If the endpoint becomes faster, the rest of the step has the new speed.
    """

    at_s: float
    endpoint: int
    slowdown: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole replay. `arrivals` and `changes` are in order of time.

    An endpoint is identified by its index in `endpoints`.
    """

    name: str
    arrivals: tuple[Arrival, ...]
    endpoints: tuple[Hardware, ...]
    hash_tokens: int
    changes: tuple[Change, ...] = ()
