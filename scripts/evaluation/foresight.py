"""What would become of an endpoint's requests if no other came: the engine's own future, told by its own costs.

Nothing is guessed but one thing: that blocks suffice, so that nobody is put back.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from simulator.arrival import Arrival
from simulator.cluster import Cluster
from simulator.hardware import Hardware


class Fate(NamedTuple):
    """When a request will have its first token, None when it has it already, and its last; in s of virtual time."""

    request: int
    first_token_s: float | None
    ended_s: float


class _Prefill(NamedTuple):
    """A prompt, or what is left of it, in the order of the queue."""

    request: int
    tokens: int
    context: int
    outputs: int


class State(NamedTuple):
    """An endpoint after the step that it is in; decodes are (outputs left, KV tokens, request)."""

    hardware: Hardware
    at_s: float
    slowdown: float
    decodes: list[tuple[int, int, int]]
    prefills: list[_Prefill]


def state_of(cluster: Cluster, endpoint: int, now_s: float) -> State:
    engine = cluster.engines[endpoint]
    begun, left_s = cluster.steps_begun(endpoint, now_s)
    decodes, prefills = [], []
    for sequence in engine.sequences:
        assert isinstance(sequence.id, int)
        if sequence.decodes_from is not None:
            generated = engine.generated(sequence) + begun
            left = sequence.output_tokens - generated
            if left > 0:
                decodes.append((left, sequence.prompt_tokens + generated - 1, sequence.id))
            continue
        start = sequence.computed or engine.cached_tokens(sequence.hashes, sequence.prompt_tokens)
        outputs = sequence.end - sequence.total
        if sequence.computed == sequence.total:
            # Its prompt is read by the step that goes on, which yields its first token.
            decodes.append((max(outputs - 1, 0), sequence.computed, sequence.id))
        else:
            prefills.append(_Prefill(sequence.id, sequence.total - start, start, outputs))
    return State(engine.hardware, now_s + left_s, cluster.slowdown(endpoint), decodes, prefills)


def with_arrival(state: State, arrival: Arrival, cached_tokens: int) -> State:
    """The same with one more request at the end of the queue."""
    more = _Prefill(arrival.index, arrival.prompt_tokens - cached_tokens, cached_tokens, arrival.output_tokens)
    return state._replace(prefills=[*state.prefills, more])


def fates(state: State) -> Iterable[Fate]:
    """Of all its requests, in the order in which they end."""
    cost, most = state.hardware.cost, state.hardware.max_num_batched_tokens
    slowdown_s = state.slowdown / 1000
    now_s, step = state.at_s, 0
    # Ends by the number of the step; a decode's KV tokens are its own at step 0 plus that number.
    ends = [(left, index, kv_tokens) for left, kv_tokens, index in state.decodes]
    heapify(ends)
    kv_tokens = sum(kv for _, kv, _ in state.decodes)
    first: dict[int, float] = {}
    prefills = list(reversed(state.prefills))
    while ends or prefills:
        while ends and ends[0][0] <= step:
            _, index, kv = heappop(ends)
            kv_tokens -= kv + step
            yield Fate(index, first.get(index), now_s)
        decodes = len(ends)
        if prefills:
            budget, pieces, attention_ms = most - decodes, 0, 0.0
            done: list[_Prefill] = []
            while prefills and budget > 0 and decodes + len(done) < state.hardware.max_num_seqs:
                one = prefills.pop()
                tokens = min(one.tokens, budget)
                attention_ms += cost.prefill_attention_ms(tokens, one.context)
                pieces += tokens
                budget -= tokens
                if tokens == one.tokens:
                    done.append(one)
                else:
                    prefills.append(one._replace(tokens=one.tokens - tokens, context=one.context + tokens))
                    break
            if not pieces:
                now_s, step, kv_tokens = _jump(state, decodes, kv_tokens, ends[0][0] - step, now_s, step)
                continue
            decode_ms = cost.decode_attention(decodes, kv_tokens)[0] if decodes else 0.0
            now_s += (cost.dense_ms(pieces + decodes) + attention_ms + decode_ms) * slowdown_s
            step += 1
            kv_tokens += decodes
            for one in done:
                first[one.request] = now_s
                if one.outputs <= 1:
                    yield Fate(one.request, now_s, now_s)
                    continue
                kv = one.context + one.tokens
                heappush(ends, (step + one.outputs - 1, one.request, kv - step))
                kv_tokens += kv
        elif ends:
            now_s, step, kv_tokens = _jump(state, decodes, kv_tokens, ends[0][0] - step, now_s, step)


def _jump(state: State, decodes: int, kv_tokens: int, steps: int, now_s: float, step: int) -> tuple[float, int, int]:
    """Over so many steps that only decode: time, number of the step, and KV tokens afterwards."""
    cost = state.hardware.cost
    middle_ms = cost.decode_attention(decodes, kv_tokens + (steps - 1) * decodes // 2)[0]
    now_s += steps * (cost.dense_ms(decodes) + middle_ms) * state.slowdown / 1000
    return now_s, step + steps, kv_tokens + steps * decodes
