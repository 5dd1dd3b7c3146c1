"""Read the size of an endpoint's KV cache, and how much of its prompts it finds there, from its metrics pages."""

from math import nan

from epp.pool.prefix_index import UNKNOWN_CACHE, CacheSize
from epp.scraping.engines import CacheMetrics
from epp.scraping.metrics_page import parse_labels
from epp.scraping.series import Series

# Pages between two reads: sizes change only when a server starts anew, and hits are for people.
_PAGES_PER_READ = 16
_BLOCK_LABELS = (b"block_size", b"page_size")
_COUNT_LABELS = (b"num_gpu_blocks", b"num_pages")
# vLLM's own count of tokens. For models with several kinds of layers, blocks times their size is wrong.
_TOKENS_LABEL = b"kv_cache_size_tokens"
# Largest believable block, and cache, in tokens.
_MOST_BLOCK_TOKENS, _MOST_TOKENS = 1 << 16, 1 << 30


class CacheReader:
    """Reads one endpoint's pages. What a page lacks is as before."""

    __slots__ = (
        "_block_tokens",
        "_blocks",
        "_hits",
        "_info",
        "_labels",
        "_queries",
        "_rate",
        "_skip",
        "hit_ratio",
        "size",
    )

    def __init__(self, metrics: CacheMetrics) -> None:
        self._info = Series(metrics.info)
        self._block_tokens, self._blocks = Series(metrics.block_tokens), Series(metrics.blocks)
        self._rate, self._hits, self._queries = (
            Series(gauges) for gauges in (metrics.hit_rate, metrics.hits, metrics.queries)
        )
        self._labels = b""
        self._skip = 0
        self.size = UNKNOWN_CACHE
        self.hit_ratio = nan
        """The share of prompt tokens found in the cache since the server started; NaN if unknown."""

    def read(self, page: bytes) -> None:
        if self._skip:
            self._skip -= 1
            return
        self._skip = _PAGES_PER_READ - 1
        self._read_info(page)
        block_tokens, blocks = self._block_tokens.read(page), self._blocks.read(page)
        if block_tokens and blocks:
            self._set_size(block_tokens * blocks, block_tokens)
        hits, queries = self._hits.read(page), self._queries.read(page)
        ratio = self._rate.read(page) if not queries else (hits or 0.0) / queries
        if ratio is not None and 0 <= ratio <= 1:
            self.hit_ratio = ratio

    def _read_info(self, page: bytes) -> None:
        at = self._info.find(page)
        labels = self._info.gauge.newest_labels(page, at) if at >= 0 else None
        if not labels or labels == self._labels:
            return
        self._labels = labels
        values = parse_labels(labels)
        block_tokens, blocks = (
            next((_number(values[label]) for label in names if label in values), 0.0)
            for names in (_BLOCK_LABELS, _COUNT_LABELS)
        )
        self._set_size(_number(values.get(_TOKENS_LABEL, b"")) or block_tokens * blocks, block_tokens)

    def _set_size(self, tokens: float, block_tokens: float) -> None:
        if 1 <= block_tokens <= _MOST_BLOCK_TOKENS and block_tokens <= tokens <= _MOST_TOKENS:
            self.size = CacheSize(tokens, block_tokens)


def _number(text: bytes) -> float:
    """Return a label's number; 0 for `None` and whatever else is no count."""
    return float(text) if text.isdigit() and len(text) < 12 else 0.0
