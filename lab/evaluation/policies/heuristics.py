"""Policies that need nothing but a counter or two of their own."""

import random
from collections.abc import Callable

from simulator.arrival import Arrival
from simulator.cluster import Flight, Placement


class Heuristic:
    """Places by counters of what it has placed itself: requests, and tokens of prompts and answers, in flight."""

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
    """Ties fall to the endpoint that comes next in turn, as proxies do it."""

    def choose(self) -> int:
        return _least(self.requests, self.placed_total)


class LeastTokens(Heuristic):
    """By the prompts' tokens in flight; how long an answer will be nobody knows."""

    def choose(self) -> int:
        return _least(self.tokens, self.placed_total)


class PowerOfTwo(Heuristic):
    """Of two drawn at random, the one with fewer requests."""

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
