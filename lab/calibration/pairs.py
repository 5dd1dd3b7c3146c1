"""The calibrated pairs of model and accelerator, and their engine's limits."""

from dataclasses import dataclass

BYTES_PER_VALUE = 2  # bf16, for weights and KV cache
BLOCK_TOKENS = 16
# Share of an accelerator's memory that the engine may use.
_MEMORY_SHARE = 0.9
# Memory for activations and CUDA graphs on each accelerator.
_RESERVED_BYTES = 2 << 30
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A dense transformer with grouped-query attention and a gated MLP, as its published config.json describes it."""

    name: str
    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_model_len: int


LLAMA_8B = Model(
    name="Llama-3.1-8B bf16",
    parameters=8_030_261_248,
    layers=32,
    hidden=4_096,
    intermediate=14_336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128_256,
    max_model_len=131_072,
)
QWEN_32B = Model(
    name="Qwen3-32B bf16",
    parameters=32_762_123_264,
    layers=64,
    hidden=5_120,
    intermediate=25_600,
    heads=64,
    kv_heads=8,
    head_dim=128,
    vocabulary=151_936,
    max_model_len=40_960,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A model on `gpus` accelerators. `system` and `version` identify the kernel measurements."""

    name: str
    model: Model
    gpu: str
    system: str
    version: str
    memory_bytes: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpus: int = 1

    def num_blocks(self) -> int:
        """Return the KV blocks that fit into 0.9 of the memory, less weights, and 2 GiB per accelerator."""
        model = self.model
        token_bytes = 2 * model.layers * model.kv_heads * model.head_dim * BYTES_PER_VALUE
        usable = self.gpus * (int(_MEMORY_SHARE * self.memory_bytes) - _RESERVED_BYTES)
        return (usable - model.parameters * BYTES_PER_VALUE) // (token_bytes * BLOCK_TOKENS)


# vLLM's default limits differ by accelerator. An H100 gets a larger batch and token budget than an A100, and than any
# accelerator below 70 GiB.
PAIRS = (
    Pair(
        name="h100-llama-3.1-8b",
        model=LLAMA_8B,
        gpu="H100 SXM 80 GB",
        system="h100_sxm",
        version="0.24.0",
        memory_bytes=80 * _GIB,
        max_num_seqs=1_024,
        max_num_batched_tokens=8_192,
    ),
    Pair(
        name="a100-llama-3.1-8b",
        model=LLAMA_8B,
        gpu="A100 SXM 80 GB",
        system="a100_sxm",
        version="0.14.0",
        memory_bytes=80 * _GIB,
        max_num_seqs=256,
        max_num_batched_tokens=2_048,
    ),
    Pair(
        name="l40s-llama-3.1-8b",
        model=LLAMA_8B,
        gpu="L40S 48 GB",
        system="l40s",
        version="0.24.0",
        memory_bytes=46_068 << 20,
        max_num_seqs=256,
        max_num_batched_tokens=2_048,
    ),
    Pair(
        name="2xh100-qwen3-32b",
        model=QWEN_32B,
        gpu="2 x H100 SXM 80 GB",
        system="h100_sxm",
        version="0.24.0",
        memory_bytes=80 * _GIB,
        max_num_seqs=1_024,
        max_num_batched_tokens=8_192,
        gpus=2,
    ),
)
