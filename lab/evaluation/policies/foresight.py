"""Predicts when an endpoint's requests end if no other request comes, from the engine's state and costs.

It assumes that blocks suffice, so that no sequence is preempted. It also assumes that between the ends of two decodes,
all steps take as long as the middle one. Steps that read prompts are computed one by one. Once only decodes are left,
no loop is needed: their number and their KV tokens are cumulative sums, from the last that ends to the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.policies.lengths import Lengths, known_length
from simulator.arrival import Arrival
from simulator.cluster import Cluster
from simulator.hardware import Hardware

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Share of ending sequences that new ones will have replaced, in a pool that keeps getting requests.
REPLACED = 0.5


class Prompt(NamedTuple):
    """A prompt that is still to be read.

    `tokens` are left to read after `context` read ones. `outputs` tokens are to be generated, of `length` in the whole
    answer.
    """

    request: int
    tokens: int
    context: int
    outputs: int
    length: int


class Decodes(NamedTuple):
    """The sequences that decode after the step in progress, in the order of their ends.

    Columns: request ids, steps left, KV tokens, and lengths of the whole answers.
    """

    requests: Ints
    steps: Floats
    kv_tokens: Floats
    lengths: Floats


@dataclass(slots=True)
class Reading:
    """The steps while there are prompts to read.

    `steps` and `times_s` are the numbers and times of the steps' ends. `joined` are the sequences that have begun to
    decode: (last step, KV tokens extrapolated back to step 0, request, time of first token, length of answer).
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
    """An endpoint's load at the end of the step in progress, `at_s`. That step has number 0."""

    hardware: Hardware
    slowdown: float
    at_s: float
    decodes: Decodes
    prompts: tuple[Prompt, ...]

    def later(self, steps: int, at_s: float) -> "EndpointLoad":
        """Return the load after `steps` more steps that only decoded."""
        requests, left, kv_tokens, lengths = self.decodes
        decodes = Decodes(requests, left - steps, kv_tokens + steps, lengths)
        return EndpointLoad(self.hardware, self.slowdown, at_s, decodes, ())


class Future(NamedTuple):
    """The predicted times of an endpoint's requests, in the order of their ends.

    `first_s` is NaN if the first token comes by the end of the step in progress.
    """

    requests: Ints
    first_s: Floats
    ended_s: Floats
    lengths: Floats


def load_of(cluster: Cluster, endpoint: int, now_s: float, lengths: Lengths = known_length) -> EndpointLoad:
    """Return an endpoint's load. `lengths` gives the lengths of the answers."""
    engine = cluster.engines[endpoint]
    begun, left_s = cluster.steps_begun(endpoint, now_s)
    decodes: list[tuple[int, int, int, int]] = []
    prompts = []
    for sequence in engine.sequences:
        assert isinstance(sequence.id, int)
        generated = engine.generated(sequence)
        if sequence.decodes_from is not None or sequence.computed == sequence.total:
            # If the step in progress completes the prompt, it yields one token.
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
    """Return whether a prompt that came now would begin after `after_s`, even if the queue were read at full speed.

    Look only as far into the queue as necessary.
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


def prompt_of(arrival: Arrival, cached_tokens: int, lengths: Lengths = known_length) -> Prompt:
    length = lengths(arrival.output_tokens, 0)
    return Prompt(arrival.index, arrival.prompt_tokens - cached_tokens, cached_tokens, length, length)


def begin_reading(load: EndpointLoad) -> Reading:
    """Return the state before any prompt is read."""
    steps = load.decodes.steps
    ended = int(steps.searchsorted(0.0, "right"))
    return Reading([0], [load.at_s], len(steps) - ended, float(load.decodes.kv_tokens[ended:].sum()), ended)


def read_prompts(load: EndpointLoad, reading: Reading, prompts: Sequence[Prompt]) -> None:
    """Advance `reading` by the steps that read all `prompts`."""
    queue = list(reversed(prompts))
    while queue:
        _step(load, reading, queue)


def read_all_but_last(load: EndpointLoad, reading: Reading) -> tuple[Prompt, ...]:
    """Advance `reading` by the steps that read the load's prompts, without the last step.

    Return the prompts of the last step. Up to that step, another prompt at the end of the queue changes nothing.
    """
    queue = list(reversed(load.prompts))
    while sum(one.tokens for one in queue) + reading.decodes > load.hardware.max_num_batched_tokens:
        _step(load, reading, queue)
    return tuple(reversed(queue))


def _step(load: EndpointLoad, reading: Reading, queue: list[Prompt]) -> None:
    """Advance by one step that reads prompts. If no more sequences may run, advance until one ends."""
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
    """Advance to `step`: each decode gets a token per step, and decodes with their last token leave."""
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
    """Return the future of all requests, once `reading` has read all prompts.

    `replaced` is the share of ending sequences that similar new ones replace, if more requests are expected.
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
    """Return the seconds until each sequence ends, if only these decode. They are in order of their last steps."""
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
