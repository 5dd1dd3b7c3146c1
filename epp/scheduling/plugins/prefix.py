"""The scorer of what an endpoint has probably cached of the prompt."""

from typing import Annotated

import msgspec
import numpy as np

from epp.scheduling.plugin import Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Snapshot


@plugin("prefix-cache-scorer")
class PrefixCacheScorer(Scorer, frozen=True):
    """The share of the prompt's blocks that lead and were sent to the endpoint before.

    The parameters size the pool's prefix index: bytes of prompt a block, blocks looked at, blocks kept an endpoint.
    """

    hash_block_size: Annotated[int, msgspec.Meta(ge=8)] = 64
    max_prefix_blocks_to_match: Annotated[int, msgspec.Meta(ge=1)] = 256
    lru_capacity_per_server: Annotated[int, msgspec.Meta(ge=1)] = 31_250

    def score(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Floats:
        return pool.prefix_score
