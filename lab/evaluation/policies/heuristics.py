"""Simple policies that need only their own counters."""

import random
from collections.abc import Callable

from simulator.arrival import Arrival
from simulator.cluster import Flight, Placement


class Heuristic:
    """A policy with counters of its requests and prompt tokens in flight, by endpoint."""

    def __init__(self, endpoints: int, seed: int) -> None:
        self.requests = [0] * endpoints
        self.tokens = [0] * endpoints
        self.placed_total = 0
        self.rng = random.Random(f"{seed}/heuristic")

    def choose(self) -> int:
        raise NotImplementedError

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        endpoint = self.choose()
        self.placed_total += 1
        self.requests[endpoint] += 1
        self.tokens[endpoint] += arrival.prompt_tokens
        return Placement(endpoint)

    def first_token(self, flight: Flight, now_s: float) -> None: ...

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...

    def ended(self, flight: Flight, now_s: float) -> None:
        self.requests[flight.endpoint] -= 1
        self.tokens[flight.endpoint] -= flight.arrival.prompt_tokens


class Random(Heuristic):
    def choose(self) -> int:
        return self.rng.randrange(len(self.requests))


class RoundRobin(Heuristic):
    def choose(self) -> int:
        return self.placed_total % len(self.requests)


class LeastRequests(Heuristic):
    """Chooses the fewest requests in flight. Ties go to the next endpoint in turn, as in proxies."""

    def choose(self) -> int:
        return _least(self.requests, self.placed_total)


class LeastTokens(Heuristic):
    """Chooses the fewest prompt tokens in flight. Lengths of answers are unknown."""

    def choose(self) -> int:
        return _least(self.tokens, self.placed_total)


class PowerOfTwo(Heuristic):
    """Draws two endpoints at random, and chooses the one with fewer requests."""

    def choose(self) -> int:
        one, other = self.rng.sample(range(len(self.requests)), 2)
        return one if self.requests[one] <= self.requests[other] else other


HEURISTICS: dict[str, Callable[[int, int], Heuristic]] = {
    "random": Random,
    "round-robin": RoundRobin,
    "least-requests": LeastRequests,
    "least-tokens": LeastTokens,
    "p2c": PowerOfTwo,
}


def _least(counts: list[int], turn: int) -> int:
    least, first = min(counts), turn % len(counts)
    try:
        return counts.index(least, first)
    except ValueError:
        return counts.index(least)
