"""An estimate of a pool's capacity by arithmetic. A search over request rates begins there."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from simulator.hardware import Hardware
from simulator.workloads.draw import Requests
from simulator.workloads.objectives import SloMultiple, unloaded_tpot_ms, unloaded_ttft_ms

# The largest share of its time that an engine may spend on prompts. Beyond it, queueing dominates latency.
_MOST_PREFILL = 0.9


def pool_tokens(endpoints: Sequence[Hardware]) -> int:
    """Return how many tokens the caches of all endpoints hold together."""
    return sum(endpoint.num_blocks * endpoint.block_tokens for endpoint in endpoints)


def cached_share(requests: Requests, hash_tokens: int, cache_tokens: int) -> float:
    """Return the share of prompt tokens that one LRU cache of `cache_tokens` tokens finds."""
    held: OrderedDict[int, None] = OrderedDict()
    found = 0
    for hashes in requests.hashes:
        in_a_row = True
        for piece in hashes:
            in_a_row = in_a_row and piece in held
            found += in_a_row
            held[piece] = None
            held.move_to_end(piece)
        while len(held) > cache_tokens // hash_tokens:
            held.popitem(last=False)
    return found * hash_tokens / max(1, int(requests.prompt_tokens.sum()))


def half_in_trouble_rps(
    endpoints: Sequence[Hardware], fast: Hardware, requests: Requests, mix: Sequence[SloMultiple], cached: float
) -> float:
    """Return the rate at which the endpoints' steps take as long as the TPOT objectives allow.

    Each class of objectives counts by its share of the requests. Near this rate, about half of them are in trouble.
    """
    prompt, output = requests.prompt_tokens, requests.output_tokens
    tpot_ms = float(unloaded_tpot_ms(fast, prompt, output).mean())
    context = int(prompt.mean() + output.mean() / 2)

    def endpoint_rps(hardware: Hardware) -> float:
        prefill_ms = float(unloaded_ttft_ms(hardware, prompt).mean()) * (1 - cached)
        rates = [_rps(hardware, prefill_ms, context, float(output.mean()), tpot_ms * one.tpot) for one in mix]
        return float(np.average(rates, weights=[one.share for one in mix]))

    by_name = {hardware.name: endpoint_rps(hardware) for hardware in endpoints}
    return sum(by_name[hardware.name] for hardware in endpoints)


def _rps(hardware: Hardware, prefill_ms: float, context: int, output: float, tpot_ms: float) -> float:
    """Return the rate of an endpoint whose steps take at most `tpot_ms`.

    With b decoding sequences, a step also prefills b / output prompts. The rate is that of the largest such b.
    """
    largest = min(hardware.max_num_seqs, hardware.num_blocks * hardware.block_tokens // context)

    def fits(decodes: int) -> bool:
        decode_ms = hardware.cost.dense_ms(decodes) + hardware.cost.decode_attention_ms(decodes, decodes * context)
        return decode_ms + decodes * prefill_ms / output <= tpot_ms

    low, high = 0, largest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return min(1000 * low / (output * tpot_ms), 1000 * _MOST_PREFILL / prefill_ms)
