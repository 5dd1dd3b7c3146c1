"""A calibration, fitted to a server's measured steps."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lab.calibration.server.limits import EngineLimits
from lab.calibration.server.samples import Samples
from simulator.calibration_file import Calibration
from simulator.surface import extend

Times = dict[tuple[int, int], float]


def fit(samples: Samples, found: EngineLimits, texts: Mapping[str, str], notes: tuple[str, ...]) -> Calibration:
    """Return the calibration of these samples.

    A batch's time at no context, and a prompt's at no earlier tokens, are extrapolated from those measured. What then
    depends on the number of new tokens alone is `dense`; prompts and batches of one size share the smaller time. What a
    request costs beyond its tokens is taken for a part of its step, until traffic shows what it costs others.
    """
    starts, slopes = _decode_lines(samples)
    alone_ms = _alone_ms(samples, starts[1])
    prompt_dense, prefill_attention = _prompts(samples, alone_ms, found.max_num_batched_tokens)
    dense = _dense(prompt_dense, starts)
    sizes = np.array(sorted(dense))
    known = np.array([dense[size] for size in sizes.tolist()])
    decode_attention = _decode_attention(samples, starts, slopes, sizes, known)
    return Calibration(
        texts=texts,
        limits={
            "num_blocks": found.usable_blocks,
            "block_tokens": found.block_tokens,
            "max_num_seqs": found.max_num_seqs,
            "max_num_batched_tokens": found.max_num_batched_tokens,
            "max_model_len": found.max_model_len,
        },
        host_ms=0.0,
        kernel_factor=1.0,
        dense={(size, 0): ms for size, ms in dense.items()},
        prefill_attention=prefill_attention,
        decode_attention=decode_attention,
        prompt_token_ms=max([0.0, *(cell.ms for _, cell in sorted(samples.texts.items())[-1:])]),
        request_step_ms=alone_ms,
        shared_discount=_shared_discount(samples, starts, slopes),
        reserve_prompt=True,
        notes=notes,
    )


def _decode_lines(samples: Samples) -> tuple[dict[int, float], dict[int, float]]:
    """Return each batch's step time at no context, and by how much a token of context makes it longer.

    A batch that was measured at one context only has the slope of the largest smaller one, in proportion to its size.
    """
    starts: dict[int, float] = {}
    slopes: dict[int, float] = {}
    per_token = 0.0
    for batch in sorted({batch for batch, _ in samples.decode}):
        at = [(samples.contexts[key].ms, cell.ms) for key, cell in sorted(samples.decode.items()) if key[0] == batch]
        contexts, times = (np.array(part) for part in zip(*at, strict=True))
        if len(at) > 1 and np.ptp(contexts) > 0:
            weights = 1 / times
            slope = float(np.polyfit(contexts, times, 1, w=weights)[0])
            per_token = max(slope, 0.0) / batch
        slopes[batch] = per_token * batch
        starts[batch] = max(float(np.average(times - slopes[batch] * contexts, weights=1 / times)), 1e-3)
    # More sequences never take less time.
    for batch, above in zip(starts, list(starts)[1:], strict=False):
        starts[above] = max(starts[above], starts[batch])
    return starts, slopes


def _decode_attention(
    samples: Samples,
    starts: Mapping[int, float],
    slopes: Mapping[int, float],
    sizes: NDArray[np.int64],
    dense_ms: NDArray[np.float64],
) -> Times:
    """Return what batches take beyond `dense`: as measured, and along their lines to both ends of the contexts."""
    reach = round(max(cell.ms for cell in samples.contexts.values()))
    found: Times = {}
    for batch, start_ms in starts.items():
        base_ms = float(extend(sizes, dense_ms, np.array([batch]))[0])
        found[batch, 1] = max(start_ms + slopes[batch] - base_ms, 0.0)
        measured = {
            round(samples.contexts[at].ms): cell.ms for at, cell in sorted(samples.decode.items()) if at[0] == batch
        }
        found |= {(batch, context): max(ms - base_ms, 0.0) for context, ms in measured.items() if context > 1}
        last = max(measured)
        if last < reach:
            found[batch, reach] = max(measured[last] + slopes[batch] * (reach - last) - base_ms, 0.0)
    return found


def _alone_ms(samples: Samples, step_ms: float) -> float:
    """Return what a prompt of one token takes beyond a step like that of one decode.

    No other prompt takes less. On a busy machine, one may seem to.
    """
    return max(min(cell.ms for cell in samples.prefill.values()) - step_ms, 0.0)


def _shared_discount(samples: Samples, starts: Mapping[int, float], slopes: Mapping[int, float]) -> float:
    """Return the share of attention that sequences save for the tokens that they share, on average over batches."""
    found = []
    for (batch, shared), cell in samples.shared.items():
        if batch in slopes and slopes[batch] > 0:
            apart_ms = starts[batch] + slopes[batch] * samples.shared_contexts[batch, shared].ms
            # All but one of the sequences read what another one reads as well.
            repeated_ms = slopes[batch] * shared * (batch - 1) / batch
            found.append((apart_ms - cell.ms) / repeated_ms)
    return float(np.clip(np.median(found), 0.0, 1.0)) if found else 0.0


def _prompts(samples: Samples, alone_ms: float, budget: int) -> tuple[dict[int, float], Times]:
    """Return the time of steps of one prompt's tokens at no context, and the attention to earlier tokens.

    A new token attends to the earlier ones, and on average to half of the new ones.
    """
    dense: dict[int, float] = {}
    attention: Times = {}
    reach = max([cached for _, cached in samples.prefill] or [0])
    pair_ms = None if reach else _pair_ms(samples, alone_ms, budget)
    for tokens in sorted({tokens for tokens, _ in samples.prefill if tokens <= budget}):
        at = [(cached, cell.ms - alone_ms) for (new, cached), cell in samples.prefill.items() if new == tokens]
        contexts, times = (np.array(part, dtype=float) for part in zip(*sorted(at), strict=True))
        slope = float(np.polyfit(contexts, times, 1)[0]) if len(at) > 1 else (pair_ms or 0.0) * tokens
        slope = max(slope, 0.0)
        at_none = float(np.mean(times - slope * contexts))
        dense[tokens] = max(at_none - slope * tokens / 2, 1e-3)
        far = max(reach, 8 * budget)
        attention[tokens, 0] = slope * tokens / 2
        attention[tokens, far] = slope * (tokens / 2 + far)
    return dense, attention


def _pair_ms(samples: Samples, alone_ms: float, budget: int) -> float:
    """Return the time of a new token's attention to an earlier one, from a prompt that took several steps."""
    long = [(tokens, cell.ms) for (tokens, cached), cell in samples.prefill.items() if tokens > budget and not cached]
    if not long or (budget, 0) not in samples.prefill:
        return 0.0
    tokens, ms = long[0]
    pieces = tokens / budget
    # The pieces' own times are those of a prompt of one piece; the rest is attention to the pieces before.
    rest_ms = ms - alone_ms - pieces * (samples.prefill[budget, 0].ms - alone_ms)
    return max(rest_ms, 0.0) / (budget**2 * pieces * (pieces - 1) / 2) if pieces > 1 else 0.0


def _dense(prompts: Mapping[int, float], starts: Mapping[int, float]) -> dict[int, float]:
    """Return the times by new tokens: those of prompts, and of batches where they are smaller."""
    sizes = np.array(sorted(prompts))
    known = np.array([prompts[size] for size in sizes.tolist()])
    merged = dict(prompts)
    for batch, start_ms in starts.items():
        of_prompts = float(extend(sizes, known, np.array([batch]))[0])
        merged[batch] = min(of_prompts, start_ms)
    for size in prompts:
        above = [ms for batch, ms in starts.items() if batch >= size]
        merged[size] = min([merged[size], *above])
    return merged
