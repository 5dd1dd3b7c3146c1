"""Plugins for prefix caching: the size of the prefix index, a scorer by cached share, and an affinity filter."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import msgspec
import numpy as np

from epp.scheduling.configuration.parameters import Count, Share
from epp.scheduling.plugin import Filter, Marker, Plugin, Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Floats, Snapshot

PRODUCER = "approx-prefix-cache-producer"
# Bytes per token, to convert between tokens and hashed text. A token of English or code is about four characters.
_BYTES_PER_TOKEN = 4
# Least block size in tokens, as in llm-d's producer. Smaller blocks enlarge the index without better routing.
_MIN_BLOCK_TOKENS = 64

BlockBytes = Annotated[int, msgspec.Meta(ge=8, le=1 << 20)]
Blocks = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]


@dataclass(frozen=True, slots=True)
class PrefixParameters:
    """The size of the prefix index: bytes per block, blocks matched per prompt, blocks kept per endpoint.

    With `auto_tune`, as many blocks are kept as an endpoint's own cache holds, where its metrics tell.
    """

    hash_block_size: int = 64
    max_prefix_blocks_to_match: int = 256
    lru_capacity_per_server: int = 31_250
    auto_tune: bool = field(default=True, compare=False)

    @property
    def tokens_per_block(self) -> float:
        """The length of a block for an index that follows the endpoints' caches; 0 for one that doesn't."""
        return self.hash_block_size / _BYTES_PER_TOKEN if self.auto_tune else 0.0


@plugin(PRODUCER)
class ApproxPrefixCacheProducer(Marker, frozen=True):
    """Sizes the prefix index, in tokens of four characters; a block is at least 64 tokens.

    With `autoTune`, as many blocks are kept as the endpoint's cache holds, and only whole blocks of the cache count as
    found. `lruCapacityPerServer` holds for endpoints whose metrics don't tell, and for all without `autoTune`.
    """

    auto_tune: bool = True
    block_size_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 16
    block_size: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    max_prefix_tokens_to_match: Tokens = 131_072
    max_prefix_blocks_to_match: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 2048
    lru_capacity_per_server: Blocks = 31_250

    @property
    def parameters(self) -> PrefixParameters:
        block_tokens = max(self.block_size_tokens, _MIN_BLOCK_TOKENS)
        block_bytes = max(self.block_size, 8) if self.block_size else block_tokens * _BYTES_PER_TOKEN
        blocks = self.max_prefix_blocks_to_match or 1 << 24
        if self.max_prefix_tokens_to_match:
            blocks = max(self.max_prefix_tokens_to_match * _BYTES_PER_TOKEN // block_bytes, 1)
        return PrefixParameters(block_bytes, blocks, self.lru_capacity_per_server, self.auto_tune)


@plugin("prefix-cache-scorer")
class PrefixCacheScorer(Scorer, frozen=True):
    """Scores the share of the prompt's leading blocks that were sent to the endpoint before.

    `matchLengthWeight` is the weight of the squared matched length, in units of `matchLengthScaleTokens`.
    The first three parameters size the pool's prefix index, unless approx-prefix-cache-producer is declared. An
    `lruCapacityPerServer` other than the default holds for all endpoints. The default gives way to the size of the
    endpoint's own cache, where its metrics tell.
    """

    hash_block_size: BlockBytes = 64
    max_prefix_blocks_to_match: Blocks = 256
    lru_capacity_per_server: Blocks = 31_250
    match_length_weight: Share = 0.0
    match_length_scale_tokens: Count = 8192
    prefix_match_info_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = {"prefixMatchInfoProducerName": PRODUCER}

    @property
    def parameters(self) -> PrefixParameters:
        return PrefixParameters(
            self.hash_block_size,
            self.max_prefix_blocks_to_match,
            self.lru_capacity_per_server,
            auto_tune=self.lru_capacity_per_server == PrefixParameters().lru_capacity_per_server,
        )

    def bound(self, declared: Sequence[Plugin]) -> Self:
        size = prefix_parameters(declared)
        return msgspec.structs.replace(
            self,
            hash_block_size=size.hash_block_size,
            max_prefix_blocks_to_match=size.max_prefix_blocks_to_match,
            lru_capacity_per_server=size.lru_capacity_per_server,
        )

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        ratio = candidates.prefix_score
        if not self.match_length_weight:
            return ratio
        block_tokens = self.hash_block_size / _BYTES_PER_TOKEN
        matched_tokens = ratio * (len(request.block_hashes) * block_tokens)
        length = np.minimum(matched_tokens / self.match_length_scale_tokens, 1.0)
        return self.match_length_weight * length * length + (1.0 - self.match_length_weight) * ratio


@plugin("prefix-cache-affinity-filter")
class PrefixCacheAffinityFilter(Filter, frozen=True):
    """Keeps the endpoints that hold `affinityThreshold` of the prompt, unless they are too slow to the first token.

    Keeps all endpoints when the best TTFT of the holders is more than `maxTTFTPenaltyMs` above that of the others.
    A penalty of 0 disables this rule. `ttftSource` chooses how TTFT is estimated: by prediction, or as the tokens
    waiting for prefill divided by `peakPrefillThroughput` (tokens/s).
    """

    affinity_threshold: Annotated[float, msgspec.Meta(le=1)] = 0.80
    exploration_probability: Share = 0.0
    max_ttft_penalty_ms: Annotated[float, msgspec.Meta(ge=0)] = msgspec.field(name="maxTTFTPenaltyMs", default=18_000.0)
    ttft_source: Literal["prefillThroughput", "latencyPredictor"] = "prefillThroughput"
    peak_prefill_throughput: Annotated[float, msgspec.Meta(ge=0)] = 15_928.0
    prefix_match_info_producer_name: str = ""
    latency_prediction_info_producer_name: str = ""
    in_flight_load_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = {
        "prefixMatchInfoProducerName": PRODUCER,
        "latencyPredictionInfoProducerName": "predicted-latency-producer",
        "inFlightLoadProducerName": "inflight-load-producer",
    }

    def __post_init__(self) -> None:
        if self.ttft_source == "prefillThroughput" and self.max_ttft_penalty_ms and not self.peak_prefill_throughput:
            raise ValueError("peakPrefillThroughput must be greater than 0 when ttftSource is prefillThroughput")

    @property
    def needs_predictions(self) -> bool:
        return self.ttft_source == "latencyPredictor" and self.max_ttft_penalty_ms > 0

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        sticky: Bools = candidates.prefix_score >= self.affinity_threshold
        if sticky.all() or not sticky.any():
            return np.ones(len(candidates), dtype=bool)
        if self.exploration_probability and rng.random() < self.exploration_probability:
            return np.ones(len(candidates), dtype=bool)
        return np.ones(len(candidates), dtype=bool) if self._too_slow(sticky, candidates) else sticky

    def _too_slow(self, sticky: Bools, candidates: Snapshot) -> bool:
        """Return whether the holders are too slow to the first token; one without a prediction is never fastest."""
        if not self.max_ttft_penalty_ms:
            return False
        ttft_ms = candidates.prefill_tokens * (1000.0 / (self.peak_prefill_throughput or 1.0))
        if self.ttft_source == "latencyPredictor":
            if candidates.predictions is None:
                return False
            predicted_ms = candidates.predictions.ttft_ms
            ttft_ms = np.where(np.isnan(predicted_ms), np.inf, predicted_ms)
        best, best_other = float(ttft_ms[sticky].min()), float(ttft_ms[~sticky].min())
        return best - best_other > self.max_ttft_penalty_ms


def sizes_prefix_index(declared: Iterable[Plugin]) -> bool:
    """Return whether any declared plugin sets the size of the prefix index."""
    return any(
        isinstance(p, ApproxPrefixCacheProducer)
        or (isinstance(p, PrefixCacheScorer) and p.parameters != PrefixParameters())
        for p in declared
    )


def prefix_parameters(declared: Sequence[Plugin]) -> PrefixParameters:
    """Return the size of the prefix index that the declared plugins set; ValueError when two plugins disagree."""
    producers = {p.parameters for p in declared if isinstance(p, ApproxPrefixCacheProducer)}
    scorers = {p.parameters for p in declared if isinstance(p, PrefixCacheScorer)}
    scorers.discard(PrefixParameters())
    if len(producers) > 1 or len(scorers) > 1 or (producers and scorers - producers):
        raise ValueError(
            "two plugins give the prefix index different sizes; there is one index: "
            "set its size in one approx-prefix-cache-producer or in one prefix-cache-scorer"
        )
    return next(iter(producers or scorers), PrefixParameters())
