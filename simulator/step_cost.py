"""The cost of an engine step.

A step computes pieces of prompts and decoding sequences. It takes the sum of three parts: `dense_ms` for all new
tokens (a decode is one token), `prefill_attention_ms` for each piece, and `decode_attention_ms` for all decodes.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.surface import Surface


class StepCost(Protocol):
    def dense_ms(self, tokens: int) -> float:
        """Return the time that depends only on new tokens: host, weights, matrix products and all-reduce."""

    def prefill_attention_ms(self, tokens: int, context: int) -> float:
        """Return the attention time of a piece: `tokens` new prompt tokens after `context` earlier ones."""

    def decode_attention_ms(self, decodes: int, kv_tokens: int) -> float:
        """Return the attention time of `decodes` sequences that read `kv_tokens` in total."""

    def decodes_ms(self, decodes: NDArray[np.int64], kv_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the time of whole steps that only decode, each from 1 to `max_num_seqs` sequences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCost:
    """A linear cost with five parameters, in ms.

    The parameters of a decode cover all of its work. `decode_attention_ms` therefore subtracts what `dense_ms` charges
    for the decode's token.
    """

    base_ms: float
    prefill_ms_per_token: float
    prefill_ms_per_mega_pair: float
    decode_ms_per_sequence: float
    decode_ms_per_kilotoken: float

    def dense_ms(self, tokens: int) -> float:
        return self.base_ms + self.prefill_ms_per_token * tokens

    def prefill_attention_ms(self, tokens: int, context: int) -> float:
        """Charge for pairs: new tokens times the average context that each attends to."""
        return self.prefill_ms_per_mega_pair * tokens * (context + tokens // 2) / 1e6

    def decode_attention_ms(self, decodes: int, kv_tokens: int) -> float:
        own = (self.decode_ms_per_sequence - self.prefill_ms_per_token) * decodes
        return own + self.decode_ms_per_kilotoken / 1e3 * kv_tokens

    def decodes_ms(self, decodes: NDArray[np.int64], kv_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.base_ms + self.decode_ms_per_sequence * decodes + self.decode_ms_per_kilotoken / 1e3 * kv_tokens


class MeasuredCost:
    """A cost interpolated between measurements, linearly in each direction; immutable.

    Beyond the largest measured context, both attentions grow linearly with the context. A piece of more tokens than
    were measured counts as several pieces in a row, so attention to a long prompt grows quadratically. Below the
    smallest measurement, the smallest one applies. Batches up to `max_num_seqs` and steps up to
    `max_num_batched_tokens` are looked up in lists; larger ones are interpolated at each call, which is slower.
    """

    __slots__ = (
        "_contexts",
        "_decode",
        "_decode_rows",
        "_decode_table",
        "_dense",
        "_dense_steps",
        "_prefill",
        "_tokens",
        "_widths",
    )

    def __init__(
        self,
        dense: Surface,
        prefill_attention: Surface,
        decode_attention: Surface,
        max_num_seqs: int,
        max_num_batched_tokens: int,
    ) -> None:
        """Take times in ms. `dense` has the single context 0. The contexts of all three surfaces begin with 0."""
        self._dense = dense
        self._dense_steps: list[float] = dense.at_tokens(np.arange(max_num_batched_tokens + 1))[:, 0].tolist()
        self._tokens: list[int] = prefill_attention.tokens.tolist()
        self._widths: list[int] = prefill_attention.contexts.tolist()
        self._prefill: list[list[float]] = prefill_attention.ms.tolist()
        self._contexts: list[int] = decode_attention.contexts.tolist()
        self._decode = decode_attention
        rows = decode_attention.at_tokens(np.arange(max_num_seqs + 1))
        self._decode_rows = [_values_and_slopes(row, decode_attention.contexts) for row in rows]
        values, slopes = (np.array(part) for part in zip(*self._decode_rows, strict=True))
        dense_ms = dense.at_tokens(np.arange(max_num_seqs + 1))
        self._decode_table = decode_attention.contexts, values + dense_ms, slopes

    def dense_ms(self, tokens: int) -> float:
        try:
            return self._dense_steps[tokens]
        except IndexError:
            return float(self._dense.at_tokens(np.array([tokens]))[0, 0])

    def prefill_attention_ms(self, tokens: int, context: int) -> float:
        largest, ms = self._tokens[-1], 0.0
        while tokens > largest:
            ms += self._piece_ms(largest, context)
            tokens -= largest
            context += largest
        return ms + self._piece_ms(tokens, context)

    def decode_attention_ms(self, decodes: int, kv_tokens: int) -> float:
        if not decodes:
            return 0.0
        try:
            values, slopes = self._decode_rows[decodes]
        except IndexError:
            row = self._decode.at_tokens(np.array([decodes]))[0]
            values, slopes = _values_and_slopes(row, self._decode.contexts)
        context = kv_tokens / decodes
        at = bisect_right(self._contexts, context) - 1
        return values[at] + slopes[at] * (context - self._contexts[at])

    def decodes_ms(self, decodes: NDArray[np.int64], kv_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        contexts, values, slopes = self._decode_table
        context = kv_tokens / decodes
        at = contexts.searchsorted(context, "right") - 1
        return values[decodes, at] + slopes[decodes, at] * (context - contexts[at])

    def _piece_ms(self, tokens: int, context: int) -> float:
        row = bisect_right(self._tokens, tokens)
        column = min(bisect_right(self._widths, context), len(self._widths) - 1)
        left, right = self._widths[column - 1], self._widths[column]
        share = (context - left) / (right - left)
        if row in (0, len(self._tokens)):  # at an end of the table there is no row on the other side
            below = self._prefill[max(row - 1, 0)]
            return below[column - 1] + share * (below[column] - below[column - 1])
        below, above = self._prefill[row - 1], self._prefill[row]
        low = below[column - 1] + share * (below[column] - below[column - 1])
        high = above[column - 1] + share * (above[column] - above[column - 1])
        fewer = self._tokens[row - 1]
        return low + (high - low) * (tokens - fewer) / (self._tokens[row] - fewer)


def _values_and_slopes(row: NDArray[np.float64], contexts: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Return the row's values, and the slope after each context. The last slope applies to all larger contexts."""
    slopes = np.diff(row) / np.diff(contexts)
    return row.tolist(), [*slopes.tolist(), float(slopes[-1])]
