"""What a replay in virtual time is given: requests with their objectives, endpoints, and how these change."""

from dataclasses import dataclass

from simulator.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as virtual time knows it.

    `hashes` are ids of the prompt's leading whole pieces of the scenario's `hash_tokens` tokens; equal ids mean equal
    prompts up to and including that piece. There are none where nothing can ever be shared.
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
    """From `at_s` on an endpoint's steps take `slowdown` times as long as its hardware's.

    A step that goes on ends as it began, unless the endpoint becomes faster: what is left of it takes the new time.
    """

    at_s: float
    endpoint: int
    slowdown: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """`arrivals` and `changes` in order of time; an endpoint is named by its place in `endpoints`."""

    name: str
    arrivals: tuple[Arrival, ...]
    endpoints: tuple[Hardware, ...]
    hash_tokens: int
    changes: tuple[Change, ...] = ()
