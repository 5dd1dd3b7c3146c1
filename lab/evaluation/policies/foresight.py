"""What would become of an endpoint's requests if no other came: the engine's own future, told by its own costs.

Two things are taken for granted: that blocks suffice, so that nobody is put back; and that between two ends of decodes
the step halfway stands for all. Steps that read prompts are followed one by one. Where only decodes are left everything
is arithmetic: in the order in which they end, how many there are, and their KV tokens, are sums from the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.policies.lengths import Lengths, foreknown
from simulator.arrival import Arrival
from simulator.cluster import Cluster
from simulator.hardware import Hardware

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The share of the sequences whose place somebody else will have taken when they end, in a pool that goes on to be used.
REPLACED = 0.5


class Prompt(NamedTuple):
    """What is left of a prompt, in the order of the queue, and what comes after it; `length` is the whole answer's."""

    request: int
    tokens: int
    context: int
    outputs: int
    length: int


class Decodes(NamedTuple):
    """Those that decode after the step that goes on, in the order in which they end: ids, steps left, KV tokens, and
    the lengths of their answers.
    """

    requests: Ints
    steps: Floats
    kv_tokens: Floats
    lengths: Floats


@dataclass(slots=True)
class Reading:
    """The steps while there are prompts: `steps` and `times_s` at their ends, and what has joined the decodes.

    A joined sequence is (last step, KV tokens that it would have had at step 0, request, time of its first token,
    length of its answer).
    """

    steps: list[int]
    times_s: list[float]
    decodes: int
    kv_tokens: float
    ended: int = 0
    joined: list[tuple[int, float, int, float, int]] = field(default_factory=list)
    joined_ends: list[tuple[int, float]] = field(default_factory=list)

    def copy(self) -> "Reading":
        return Reading(
            self.steps[:],
            self.times_s[:],
            self.decodes,
            self.kv_tokens,
            self.ended,
            self.joined[:],
            self.joined_ends[:],
        )


@dataclass(frozen=True, slots=True)
class EndpointLoad:
    """An endpoint from the end of its step at `at_s` on; step 0 is over then."""

    hardware: Hardware
    slowdown: float
    at_s: float
    decodes: Decodes
    prompts: tuple[Prompt, ...]

    def later(self, steps: int, at_s: float) -> "EndpointLoad":
        """After so many more steps in which nothing but decodes happened."""
        requests, left, kv_tokens, lengths = self.decodes
        decodes = Decodes(requests, left - steps, kv_tokens + steps, lengths)
        return EndpointLoad(self.hardware, self.slowdown, at_s, decodes, ())


class Future(NamedTuple):
    """Of each request, in the order in which they end: its first token, NaN by the end of the step that goes on, its
    last, and the length of its answer.
    """

    requests: Ints
    first_s: Floats
    ended_s: Floats
    lengths: Floats


def load_of(cluster: Cluster, endpoint: int, now_s: float, lengths: Lengths = foreknown) -> EndpointLoad:
    """What is on an endpoint, its answers as long as `lengths` says."""
    engine = cluster.engines[endpoint]
    begun, left_s = cluster.steps_begun(endpoint, now_s)
    decodes: list[tuple[int, int, int, int]] = []
    prompts = []
    for sequence in engine.sequences:
        assert isinstance(sequence.id, int)
        generated = engine.generated(sequence)
        if sequence.decodes_from is not None or sequence.computed == sequence.total:
            # Where its prompt is read by the step that goes on, that yields a token.
            generated += begun if sequence.decodes_from is not None else 1
            length = lengths(sequence.output_tokens, generated)
            decodes.append((length - generated, sequence.id, sequence.prompt_tokens + generated - 1, length))
        else:
            start = sequence.computed or engine.cached_tokens(sequence.hashes, sequence.prompt_tokens)
            length = lengths(sequence.output_tokens, generated)
            prompts.append(Prompt(sequence.id, sequence.total - start, start, length - generated, length))
    decodes.sort()
    columns = np.array(decodes, dtype=np.float64).reshape(-1, 4)
    ordered = Decodes(columns[:, 1].astype(np.int64), columns[:, 0], columns[:, 2], columns[:, 3])
    return EndpointLoad(engine.hardware, cluster.slowdown(endpoint), now_s + left_s, ordered, tuple(prompts))


def begins_later(cluster: Cluster, endpoint: int, after_s: float) -> bool:
    """Whether a prompt that came now would begin later than that even if those that wait were read at full speed.

    Looks only as far into the queue as it has to.
    """
    engine = cluster.engines[endpoint]
    most_tokens = engine.hardware.max_num_batched_tokens
    ms_per_token = engine.hardware.cost.dense_ms(most_tokens) / most_tokens * cluster.slowdown(endpoint)
    left_ms = after_s * 1000
    for sequence in engine.queue:
        left_ms -= ms_per_token * (sequence.total - engine.cached_tokens(sequence.hashes, sequence.prompt_tokens))
        if left_ms < 0:
            return True
    return False


def prompt_of(arrival: Arrival, cached_tokens: int, lengths: Lengths = foreknown) -> Prompt:
    length = lengths(arrival.output_tokens, 0)
    return Prompt(arrival.index, arrival.prompt_tokens - cached_tokens, cached_tokens, length, length)


def begin(load: EndpointLoad) -> Reading:
    """Before any prompt is read."""
    steps = load.decodes.steps
    ended = int(steps.searchsorted(0.0, "right"))
    return Reading([0], [load.at_s], len(steps) - ended, float(load.decodes.kv_tokens[ended:].sum()), ended)


def read(load: EndpointLoad, reading: Reading, prompts: Sequence[Prompt]) -> None:
    """Takes the steps that read all prompts."""
    queue = list(reversed(prompts))
    while queue:
        _step(load, reading, queue)


def read_all_but_last(load: EndpointLoad, reading: Reading) -> tuple[Prompt, ...]:
    """Takes the load's steps that read prompts, without the last; returns what that is left to read.

    Up to there another prompt at the end of the queue changes nothing.
    """
    queue = list(reversed(load.prompts))
    while sum(one.tokens for one in queue) + reading.decodes > load.hardware.max_num_batched_tokens:
        _step(load, reading, queue)
    return tuple(reversed(queue))


def _step(load: EndpointLoad, reading: Reading, queue: list[Prompt]) -> None:
    """One step that reads prompts, or, where no more sequences may run, those until one ends."""
    hardware, cost = load.hardware, load.hardware.cost
    decodes = reading.decodes
    budget, attention_ms, done, begun = hardware.max_num_batched_tokens - decodes, 0.0, [], 0
    while queue and budget > 0 and decodes + begun < hardware.max_num_seqs:
        one = queue.pop()
        tokens = min(one.tokens, budget)
        attention_ms += cost.prefill_attention_ms(tokens, one.context)
        budget -= tokens
        begun += 1
        if tokens == one.tokens:
            done.append(one)
        else:
            queue.append(one._replace(tokens=one.tokens - tokens, context=one.context + tokens))
            break
    step = reading.steps[-1]
    if not begun:
        _advance(load, reading, max(_next_end(load, reading) - step, 1))
        return
    decode_ms = cost.decode_attention_ms(decodes, round(reading.kv_tokens)) if decodes else 0.0
    duration_ms = cost.dense_ms(hardware.max_num_batched_tokens - budget) + attention_ms + decode_ms
    now_s = reading.times_s[-1] + duration_ms * load.slowdown / 1000
    _end_step(load, reading, step + 1, now_s)
    for one in done:
        kv_tokens, ends = one.context + one.tokens, step + one.outputs
        reading.joined.append((ends, kv_tokens - step - 1, one.request, now_s, one.length))
        if one.outputs > 1:
            heappush(reading.joined_ends, (ends, kv_tokens - step - 1))
            reading.decodes += 1
            reading.kv_tokens += kv_tokens


def _advance(load: EndpointLoad, reading: Reading, steps: int) -> None:
    cost, decodes = load.hardware.cost, reading.decodes
    kv_tokens = reading.kv_tokens + (steps - 1) * decodes / 2
    duration_ms = steps * (cost.dense_ms(decodes) + cost.decode_attention_ms(decodes, round(kv_tokens)))
    _end_step(load, reading, reading.steps[-1] + steps, reading.times_s[-1] + duration_ms * load.slowdown / 1000)


def _end_step(load: EndpointLoad, reading: Reading, step: int, now_s: float) -> None:
    """All decodes have a token more for each step; those that have their last one leave."""
    reading.kv_tokens += reading.decodes * (step - reading.steps[-1])
    reading.steps.append(step)
    reading.times_s.append(now_s)
    _, ends, kv_tokens, _ = load.decodes
    while reading.ended < len(ends) and ends[reading.ended] <= step:
        reading.kv_tokens -= float(kv_tokens[reading.ended]) + step
        reading.decodes -= 1
        reading.ended += 1
    while reading.joined_ends and reading.joined_ends[0][0] <= step:
        reading.kv_tokens -= heappop(reading.joined_ends)[1] + step
        reading.decodes -= 1


def _next_end(load: EndpointLoad, reading: Reading) -> int:
    ends = [one[0] for one in reading.joined_ends[:1]]
    if reading.ended < len(load.decodes.steps):
        ends.append(int(load.decodes.steps[reading.ended]))
    return min(ends)


def foresee(load: EndpointLoad, reading: Reading, replaced: float = 0.0) -> Future:
    """All of the load's requests, once its prompts have been read.

    `replaced` is the share of those that decode then whom others like them follow, where somebody is expected to come.
    """
    requests, ends, kv_tokens, lengths = load.decodes
    first_s = np.full(len(ends), np.nan)
    if reading.joined:
        joined = np.array(reading.joined).T
        ends, kv_tokens = np.concatenate((ends, joined[0])), np.concatenate((kv_tokens, joined[1]))
        requests, first_s = np.concatenate((requests, joined[2].astype(np.int64))), np.concatenate((first_s, joined[3]))
        lengths = np.concatenate((lengths, joined[4]))
        order = np.argsort(ends, kind="stable")
        requests, ends, kv_tokens, first_s = requests[order], ends[order], kv_tokens[order], first_s[order]
        lengths = lengths[order]
    step, now_s = reading.steps[-1], reading.times_s[-1]
    first = int(ends.searchsorted(step, "right"))
    tail_s = now_s + _decode_only_s(load, ends[first:] - step, kv_tokens[first:] + step, replaced)
    if first:
        tail_s = np.concatenate((np.interp(ends[:first], reading.steps, reading.times_s), tail_s))
    return Future(requests, first_s, tail_s, lengths)


def _decode_only_s(load: EndpointLoad, ends: Floats, kv_tokens: Floats, replaced: float) -> Floats:
    """After how much time each ends, when there are none but these, in order of their last steps."""
    count = len(ends)
    if not count:
        return ends
    begins = np.concatenate(([0.0], ends[:-1]))
    steps = ends - begins
    decodes = np.arange(count, 0, -1)
    tokens = kv_tokens[::-1].cumsum()[::-1] + decodes * (begins + (steps - 1) / 2)
    if replaced:
        decodes = np.rint(decodes + replaced * (count - decodes)).astype(np.int64)
        tokens += replaced * (tokens[0] - tokens)
    passed_s: Floats = (steps * load.hardware.cost.decodes_ms(decodes, tokens)).cumsum() * (load.slowdown / 1000)
    return passed_s
