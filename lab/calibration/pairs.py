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
class Accelerator:
    """An accelerator, and vLLM's default limits on it. `system` and `version` identify the kernel measurements."""

    name: str
    system: str
    version: str
    memory_bytes: int
    max_num_seqs: int
    max_num_batched_tokens: int


# An H100 gets a larger batch and token budget than an A100, and than any accelerator below 70 GiB.
H100 = Accelerator(
    name="H100 SXM 80 GB",
    system="h100_sxm",
    version="0.24.0",
    memory_bytes=80 * _GIB,
    max_num_seqs=1_024,
    max_num_batched_tokens=8_192,
)
A100 = Accelerator(
    name="A100 SXM 80 GB",
    system="a100_sxm",
    version="0.14.0",
    memory_bytes=80 * _GIB,
    max_num_seqs=256,
    max_num_batched_tokens=2_048,
)
L40S = Accelerator(
    name="L40S 48 GB",
    system="l40s",
    version="0.24.0",
    memory_bytes=46_068 << 20,
    max_num_seqs=256,
    max_num_batched_tokens=2_048,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A model on `gpus` accelerators."""

    name: str
    model: Model
    accelerator: Accelerator
    gpus: int = 1

    @property
    def gpu(self) -> str:
        """The accelerators in words, such as "2 x H100 SXM 80 GB"."""
        return self.accelerator.name if self.gpus == 1 else f"{self.gpus} x {self.accelerator.name}"

    def num_blocks(self) -> int:
        """Return the KV blocks that fit into 0.9 of the memory, less weights, and 2 GiB per accelerator."""
        model = self.model
        token_bytes = 2 * model.layers * model.kv_heads * model.head_dim * BYTES_PER_VALUE
        usable = self.gpus * (int(_MEMORY_SHARE * self.accelerator.memory_bytes) - _RESERVED_BYTES)
        return (usable - model.parameters * BYTES_PER_VALUE) // (token_bytes * BLOCK_TOKENS)


PAIRS = (
    Pair("h100-llama-3.1-8b", LLAMA_8B, H100),
    Pair("a100-llama-3.1-8b", LLAMA_8B, A100),
    Pair("l40s-llama-3.1-8b", LLAMA_8B, L40S),
    Pair("2xh100-qwen3-32b", QWEN_32B, H100, gpus=2),
)
