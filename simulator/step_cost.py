"""What an engine step costs.

A step of prompt pieces and decoding sequences takes `dense_ms` of all its new tokens (each decode is one), plus
`prefill_attention_ms` of every piece, plus `decode_attention_ms` of the decodes together.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.surface import Surface


class StepCost(Protocol):
    def dense_ms(self, tokens: int) -> float:
        """All that depends on the step's number of new tokens alone: host, weights, matrix products, all-reduce."""

    def prefill_attention_ms(self, tokens: int, context: int) -> float:
        """Additional: a piece of `tokens` new prompt tokens, each of which attends to `context` earlier ones too."""

    def decode_attention_ms(self, decodes: int, kv_tokens: int) -> float:
        """Additional: `decodes` sequences that read `kv_tokens` in total."""

    def decodes_ms(self, decodes: NDArray[np.int64], kv_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Whole steps, each of nothing but decodes: at most as many as may run, and at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCost:
    """Five parameters, in ms.

    Those of a decode stand for all of its own work, so that what `dense_ms` charges it as a token is taken back by
    `decode_attention_ms`.
    """

    base_ms: float
    prefill_ms_per_token: float
    prefill_ms_per_mega_pair: float
    decode_ms_per_sequence: float
    decode_ms_per_kilotoken: float

    def dense_ms(self, tokens: int) -> float:
        return self.base_ms + self.prefill_ms_per_token * tokens

    def prefill_attention_ms(self, tokens: int, context: int) -> float:
        """Pairs: new tokens times the context that each attends to, on average."""
        return self.prefill_ms_per_mega_pair * tokens * (context + tokens // 2) / 1e6

    def decode_attention_ms(self, decodes: int, kv_tokens: int) -> float:
        own = (self.decode_ms_per_sequence - self.prefill_ms_per_token) * decodes
        return own + self.decode_ms_per_kilotoken / 1e3 * kv_tokens

    def decodes_ms(self, decodes: NDArray[np.int64], kv_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.base_ms + self.decode_ms_per_sequence * decodes + self.decode_ms_per_kilotoken / 1e3 * kv_tokens


class MeasuredCost:
    """Interpolates between measurements, linearly in each direction; immutable.

    Beyond the largest measured context both attentions grow linearly with it. A piece of more tokens than were ever
    measured counts as several pieces in a row, so that attention to a long prompt grows quadratically. Below the
    smallest measurement, the smallest holds. Batches up to `max_num_seqs` and steps up to `max_num_batched_tokens` are
    looked up; larger ones take longer to find.
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
        """Times in ms. `dense` is by tokens alone, in its only context, 0; contexts of all three begin with 0."""
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
        if row in (0, len(self._tokens)):  # at an end: no row on the other side
            below = self._prefill[max(row - 1, 0)]
            return below[column - 1] + share * (below[column] - below[column - 1])
        below, above = self._prefill[row - 1], self._prefill[row]
        low = below[column - 1] + share * (below[column] - below[column - 1])
        high = above[column - 1] + share * (above[column] - above[column - 1])
        fewer = self._tokens[row - 1]
        return low + (high - low) * (tokens - fewer) / (self._tokens[row] - fewer)


def _values_and_slopes(row: NDArray[np.float64], contexts: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """The slope from each context on; the last segment's goes on for ever."""
    slopes = np.diff(row) / np.diff(contexts)
    return row.tolist(), [*slopes.tolist(), float(slopes[-1])]
