"""Times of an engine's step, composed of the times of kernels."""

from statistics import median

import numpy as np

from lab.calibration.kernels import Kernels, gemm_ms
from lab.calibration.pairs import BLOCK_TOKENS, Pair
from simulator.calibration_file import Calibration
from simulator.surface import extend, surface

Times = dict[tuple[int, int], float]

# Largest step, in tokens, that vLLM replays from a CUDA graph by default.
_LARGEST_GRAPH = 512
# Most rows that the output layer is charged for: one row per sequence goes through it, and not every prompt token.
_OUTPUT_ROWS = 256
# Largest step in the tables, in tokens.
_LARGEST_STEP = 8_192
_CONTEXTS = (0, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072)


def calibration(kernels: Kernels, pair: Pair, *, source: str, host_ms: float, kernel_factor: float) -> Calibration:
    """Return the calibration of a pair: the times of all layers, made monotone."""
    limits = {
        "num_blocks": pair.num_blocks(),
        "block_tokens": BLOCK_TOKENS,
        "max_num_seqs": pair.accelerator.max_num_seqs,
        "max_num_batched_tokens": pair.accelerator.max_num_batched_tokens,
        "max_model_len": pair.model.max_model_len,
    }
    texts = {"gpu": pair.gpu, "model": pair.model.name, "source": source, "licence": "Apache-2.0"}
    return Calibration(
        texts=texts,
        limits=limits,
        host_ms=host_ms,
        kernel_factor=kernel_factor,
        dense=monotone_times(dense(kernels, pair)),
        prefill_attention=monotone_times(prefill_attention(kernels, pair)),
        decode_attention=monotone_times(decode_attention(kernels, pair)),
        notes=("num_blocks is derived from memory, and the times are composed of kernels: README.md says how",),
    )


def dense(kernels: Kernels, pair: Pair) -> Times:
    """Return the times of the matrix products of all layers, plus two all-reduces per layer on several accelerators.

    The products of a layer are QKV, output, gate and up, and down.
    """
    sizes = sorted({m for m, _, _ in kernels.gemm if m <= _LARGEST_STEP})
    return {(tokens, 0): _dense_ms(kernels, pair, tokens) for tokens in sizes}


def whole_prompts(kernels: Kernels, pair: Pair) -> Times:
    return {(tokens, 0): pair.model.layers * ms for tokens, ms in kernels.prompt.items()}


def prefill_attention(kernels: Kernels, pair: Pair) -> Times:
    """Return the attention times of pieces of prompts.

    A piece takes as long as a whole prompt of its length, plus its additional pairs at the rate of the longest prompt.
    A prompt of n tokens has n²/2 pairs; n tokens after c others have n x c more. A piece takes at least as long as a
    decode with the same context, because both read the same keys and values.
    """
    prompts = surface(whole_prompts(kernels, pair))
    longest, longest_ms = int(prompts.tokens[-1]), float(prompts.ms[-1, 0])
    per_pair = longest_ms / (longest**2 / 2)
    single = surface({at: ms for at, ms in decode_attention(kernels, pair).items() if at[0] == 1})
    reading = extend(single.contexts, single.ms[0], np.array(_CONTEXTS))
    return {
        (tokens, context): max(ms + per_pair * tokens * context, read_ms)
        for tokens, ms in zip(prompts.tokens.tolist(), prompts.ms[:, 0].tolist(), strict=True)
        if tokens <= _LARGEST_STEP
        for context, read_ms in zip(_CONTEXTS, reading.tolist(), strict=True)
    }


def decode_attention(kernels: Kernels, pair: Pair) -> Times:
    """Return the attention times of decodes.

    Batches that fit into memory were measured. Beyond, times grow in proportion to the KV tokens, at the median rate of
    the largest batches. No batch takes less per KV token than the fastest of these. A kernel that is measured again and
    again finds a small number of tokens in the L2 cache. An engine reads the other layers' tokens in between.
    """
    most = max(batch * context for batch, context in kernels.decode)
    large = [ms / (batch * context) for (batch, context), ms in kernels.decode.items() if batch * context > most / 4]
    per_token, least = median(large), min(large)
    batches, contexts = ({at[axis] for at in kernels.decode} for axis in (0, 1))
    found = {}
    for batch in batches:
        known = sorted(context for known_batch, context in kernels.decode if known_batch == batch)
        for context in contexts:
            nearest = context if context in known else known[-1]
            ms = kernels.decode[batch, nearest] + per_token * batch * (context - nearest)
            found[batch, context] = pair.model.layers * max(ms, least * batch * context)
    return found


def monotone_times(times: Times) -> Times:
    """Return the times made monotone, at the same (tokens, context) only."""
    made = surface(times)
    rows = dict(zip(made.tokens.tolist(), made.ms.tolist(), strict=True))
    columns = {context: column for column, context in enumerate(made.contexts.tolist())}
    return {(tokens, context): rows[tokens][columns[context]] for tokens, context in times}


def _dense_ms(kernels: Kernels, pair: Pair, tokens: int) -> float:
    model, gpus = pair.model, pair.gpus
    queries, pairs = model.heads * model.head_dim, 2 * model.kv_heads * model.head_dim
    products = (
        ((queries + pairs) // gpus, model.hidden),
        (model.hidden, queries // gpus),
        (2 * model.intermediate // gpus, model.hidden),
        (model.hidden, model.intermediate // gpus),
    )
    layer_ms = sum(gemm_ms(kernels.gemm, tokens, n, k) for n, k in products)
    output_ms = gemm_ms(kernels.gemm, min(tokens, _OUTPUT_ROWS), model.vocabulary // gpus, model.hidden)
    return model.layers * (layer_ms + 2 * _all_reduce_ms(kernels, tokens, tokens * model.hidden)) + output_ms


def _all_reduce_ms(kernels: Kernels, tokens: int, values: int) -> float:
    if not kernels.all_reduce:
        return 0.0
    times = kernels.all_reduce["vllm_graph" if tokens <= _LARGEST_GRAPH else "vllm_eager"]
    sizes = np.array(sorted(times))
    return float(extend(sizes, np.array([times[size] for size in sizes.tolist()]), np.array([values]))[0])
