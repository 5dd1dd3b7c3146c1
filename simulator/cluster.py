"""A pool of engines in virtual time: requests arrive, an observer places them and is told about each event.

The pool is a discrete-event simulation. An engine's next steps are one event. The event is cut short when something
happens to the engine before the event is due. Nothing depends on the machine's clock, so a run repeats exactly.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from simulator.arrival import Arrival, Change
from simulator.engine import Engine
from simulator.hardware import Hardware
from simulator.plan import Plan
from simulator.sequence import Sequence as InEngine

_NEVER = float("inf")
# In place of a plan's version, in the event of a request that the API server hands to its engine.
_HAND_OVER = -1


@dataclass(slots=True, eq=False)
class Flight:
    """A placed request. Times are in seconds of virtual time, and None until the event has happened."""

    arrival: Arrival
    endpoint: int
    sequence: InEngine
    first_token_s: float | None = None
    ended_s: float | None = None

    @property
    def ttft_ms(self) -> float:
        """The time to first token; valid once there is one."""
        return ((self.first_token_s or 0.0) - self.arrival.arrival_s) * 1000

    @property
    def tpot_ms(self) -> float:
        """The time per output token after the first; valid once the request has ended. 0 for a single token."""
        tokens = self.arrival.output_tokens - 1
        return ((self.ended_s or 0.0) - (self.first_token_s or 0.0)) * 1000 / tokens if tokens else 0.0

    @property
    def met(self) -> bool:
        """True if the request met both objectives; valid once the request has ended."""
        return self.ttft_ms <= self.arrival.slo_ttft_ms and self.tpot_ms <= self.arrival.slo_tpot_ms


class Placement(NamedTuple):
    """A decision: the endpoint for a request, and the output token counts at which to call `Observer.marked`."""

    endpoint: int
    marks: tuple[int, ...] = ()


class Observer(Protocol):
    """Places requests and receives their events. `place` returns None to shed a request."""

    def place(self, arrival: Arrival, now_s: float) -> Placement | None: ...
    def first_token(self, flight: Flight, now_s: float) -> None: ...
    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...
    def ended(self, flight: Flight, now_s: float) -> None: ...


@dataclass(slots=True)
class _Endpoint:
    """An engine, and the plan that it has carried out since `began_s`.

    `version` tells a stale event from a due one. `steps` counts the steps before the plan; the last of these began at
    `last_step_s`. `tokens` counts the output tokens of ended requests.
    """

    engine: Engine
    plan: Plan | None = None
    began_s: float = 0.0
    last_step_s: float = -_NEVER
    slowdown: float = 1.0
    version: int = 0
    is_cut: bool = False
    tokens: int = 0
    steps: int = 0


class Cluster:
    """A pool of engines, one for each of `hardware`, that share a virtual clock."""

    def __init__(self, hardware: Sequence[Hardware], hash_tokens: int, observer: Observer) -> None:
        self._endpoints = [_Endpoint(Engine(one, hash_tokens)) for one in hardware]
        self._observer = observer
        self._events: list[tuple[float, int, int, int]] = []
        self._flights: dict[Hashable, Flight] = {}
        self._order = 0
        # The requests that the endpoints' API servers have not yet handed to their engines, by their events' order.
        self._on_the_way: dict[int, InEngine] = {}

    @property
    def engines(self) -> list[Engine]:
        return [endpoint.engine for endpoint in self._endpoints]

    @property
    def output_tokens(self) -> list[int]:
        """The output tokens of ended requests, by endpoint."""
        return [endpoint.tokens for endpoint in self._endpoints]

    def slowdown(self, index: int) -> float:
        return self._endpoints[index].slowdown

    def version(self, index: int) -> int:
        """Return the version of the endpoint's plan. The version changes when the steps are planned again or cut."""
        return self._endpoints[index].version

    def steps_begun(self, index: int, now_s: float) -> tuple[int, float]:
        """Return how many steps of the endpoint's plan have begun, and the seconds until the last of these ends."""
        endpoint = self._endpoints[index]
        if endpoint.plan is None:
            return 0, 0.0
        ms_per_s = 1000 / endpoint.slowdown
        steps = endpoint.plan.steps_begun_by((now_s - endpoint.began_s) * ms_per_s)
        return steps, max(endpoint.began_s + endpoint.plan.duration_ms(steps) / ms_per_s - now_s, 0.0)

    def step_at(self, index: int, at_s: float) -> tuple[int, float]:
        """Return the number of the step that the endpoint was in at `at_s`, and when that step began, in s.

        Before the first step these are 0 and -inf. `at_s` must be recent: an endpoint remembers its present plan and
        the last step before it.
        """
        endpoint = self._endpoints[index]
        if endpoint.plan is None or at_s <= endpoint.began_s:
            return endpoint.steps, endpoint.last_step_s
        ms_per_s = 1000 / endpoint.slowdown
        steps = endpoint.plan.steps_begun_by((at_s - endpoint.began_s) * ms_per_s)
        return endpoint.steps + steps, endpoint.began_s + endpoint.plan.duration_ms(steps - 1) / ms_per_s

    def run(
        self,
        arrivals: Iterable[Arrival],
        changes: Sequence[Change] = (),
        tick: Callable[[float], None] | None = None,
        tick_s: float = 0.05,
        until: Callable[[float], bool] | None = None,
    ) -> int:
        """Run until every request has ended, or `until(now_s)` is true after an event. Return how many were shed.

        `tick` is called every `tick_s` of virtual time, in order with all other events. Scrapes belong there.
        """
        pending, shed = iter(arrivals), 0
        waiting = sorted(changes, key=lambda change: change.at_s)[::-1]
        arrival = next(pending, None)
        tick_at_s = 0.0 if tick else _NEVER
        events = self._events
        while arrival is not None or events:
            event_at_s = events[0][0] if events else _NEVER
            arrives_at_s = arrival.arrival_s if arrival is not None else _NEVER
            now_s = event_at_s if event_at_s <= arrives_at_s else arrives_at_s
            if waiting and waiting[-1].at_s <= now_s and waiting[-1].at_s <= tick_at_s:
                self._change(waiting.pop())
            elif tick_at_s <= now_s:
                assert tick  # noqa: S101 (no tick is ever due without one)
                tick(tick_at_s)
                tick_at_s += tick_s
            elif event_at_s <= arrives_at_s:
                _, order, index, version = heappop(events)
                if version == _HAND_OVER:
                    self._hand_over(index, self._on_the_way.pop(order), event_at_s)
                elif version == self._endpoints[index].version:
                    self._finish_plan(index, event_at_s)
            elif arrival is not None:
                shed += not self._arrive(arrival, arrives_at_s)
                arrival = next(pending, None)
            if until and until(now_s):
                break
        return shed

    def _arrive(self, arrival: Arrival, now_s: float) -> bool:
        placement = self._observer.place(arrival, now_s)
        if placement is None:
            return False
        index, marks = placement
        sequence = InEngine(arrival.index, arrival.hashes, arrival.prompt_tokens, arrival.output_tokens, marks)
        self._flights[arrival.index] = Flight(arrival, index, sequence)
        delay_ms = self._endpoints[index].engine.hardware.delay_ms(arrival.prompt_tokens)
        if delay_ms:
            self._order += 1
            self._on_the_way[self._order] = sequence
            heappush(self._events, (now_s + delay_ms / 1000, self._order, index, _HAND_OVER))
        else:
            self._hand_over(index, sequence, now_s)
        return True

    def _hand_over(self, index: int, sequence: InEngine, now_s: float) -> None:
        endpoint = self._endpoints[index]
        endpoint.engine.submit(sequence)
        if endpoint.plan is None:
            self._plan(index, now_s)
        elif not endpoint.is_cut:
            self._cut(index, now_s)

    def _plan(self, index: int, now_s: float) -> None:
        endpoint = self._endpoints[index]
        endpoint.plan = endpoint.engine.plan()
        endpoint.version += 1
        if endpoint.plan is None:
            return
        endpoint.began_s, endpoint.is_cut = now_s, endpoint.plan.steps == 1
        self._expect(index, endpoint.plan.duration_ms(endpoint.plan.steps))

    def _expect(self, index: int, duration_ms: float) -> None:
        endpoint = self._endpoints[index]
        self._order += 1
        at_s = endpoint.began_s + duration_ms * endpoint.slowdown / 1000
        heappush(self._events, (at_s, self._order, index, endpoint.version))

    def _cut(self, index: int, now_s: float) -> None:
        """End the plan with the step in progress, because the steps after it will differ."""
        endpoint = self._endpoints[index]
        plan = endpoint.plan
        assert plan is not None  # noqa: S101 (called while there is one)
        plan.steps = plan.steps_begun_by((now_s - endpoint.began_s) * 1000 / endpoint.slowdown)
        endpoint.version += 1
        endpoint.is_cut = True
        self._expect(index, plan.duration_ms(plan.steps))

    def _change(self, change: Change) -> None:
        """Set the endpoint's speed. A step in progress ends at its old speed, unless the endpoint becomes faster.

        A stalled endpoint's step would last very long. The change that ends the stall also ends that step.
        """
        endpoint = self._endpoints[change.endpoint]
        if endpoint.plan is not None:
            self._cut(change.endpoint, max(change.at_s, endpoint.began_s))
            if endpoint.slowdown > change.slowdown:
                self._hasten(change)
        endpoint.slowdown = change.slowdown

    def _hasten(self, change: Change) -> None:
        """Finish the rest of the step in progress at the new, higher speed."""
        endpoint = self._endpoints[change.endpoint]
        plan = endpoint.plan
        assert plan is not None  # noqa: S101 (called while there is one)
        due_s = endpoint.began_s + plan.duration_ms(plan.steps) * endpoint.slowdown / 1000
        left_s = max(due_s - change.at_s, 0.0) * change.slowdown / endpoint.slowdown
        endpoint.version += 1
        self._order += 1
        heappush(self._events, (change.at_s + left_s, self._order, change.endpoint, endpoint.version))

    def _finish_plan(self, index: int, now_s: float) -> None:
        endpoint = self._endpoints[index]
        plan, observer, flights = endpoint.plan, self._observer, self._flights
        assert plan is not None  # noqa: S101 (its event is due)
        endpoint.last_step_s = endpoint.began_s + plan.duration_ms(plan.steps - 1) * endpoint.slowdown / 1000
        endpoint.steps += plan.steps
        progress = endpoint.engine.apply(plan, plan.steps)
        for sequence in progress.first:
            flight = flights[sequence.id]
            flight.first_token_s = now_s
            observer.first_token(flight, now_s)
        for sequence in progress.marked:
            flight = flights[sequence.id]
            observer.marked(flight, sequence.total - sequence.prompt_tokens, now_s)
        for sequence in progress.finished:
            flight = flights.pop(sequence.id)
            flight.ended_s = now_s
            endpoint.tokens += sequence.output_tokens
            observer.ended(flight, now_s)
        self._plan(index, now_s)
