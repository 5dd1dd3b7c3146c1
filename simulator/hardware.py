"""What an engine step costs on some hardware.

The two presets stand for a model of some 70 billion parameters on two pairs of accelerators, a newer and an older one.
They are assumptions with the right shape, chosen for a demonstration, and not measurements of a product.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The cost of a step in ms, and the engine's limits, named as vLLM names them.

    A step costs `base_ms` (reading the weights, the host's work), plus what the new prompt tokens and their attention
    take, plus what each decoding sequence and the KV tokens that it attends to take.
    """

    name: str
    base_ms: float
    prefill_ms_per_token: float
    prefill_ms_per_mega_pair: float
    decode_ms_per_sequence: float
    decode_ms_per_kilotoken: float
    num_blocks: int = 3_072
    block_tokens: int = 16
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 1_024
    max_model_len: int = 32_768

    def step_ms(self, prefill_tokens: int, attention_pairs: int, decodes: int, kv_tokens: int) -> float:
        """`attention_pairs`: new tokens times the context that each attends to; `kv_tokens`: the decodes' context."""
        return (
            self.base_ms
            + self.prefill_ms_per_token * prefill_tokens
            + self.prefill_ms_per_mega_pair * attention_pairs / 1e6
            + self.decode_ms_per_sequence * decodes
            + self.decode_ms_per_kilotoken * kv_tokens / 1e3
        )


PRESETS = {
    "fast": Hardware(
        name="fast",
        base_ms=22.0,
        prefill_ms_per_token=0.25,
        prefill_ms_per_mega_pair=8.0,
        decode_ms_per_sequence=0.2,
        decode_ms_per_kilotoken=0.25,
    ),
    "slow": Hardware(
        name="slow",
        base_ms=50.0,
        prefill_ms_per_token=0.75,
        prefill_ms_per_mega_pair=24.0,
        decode_ms_per_sequence=0.6,
        decode_ms_per_kilotoken=0.75,
    ),
}
