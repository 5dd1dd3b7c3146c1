"""A request as the scheduler sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One inference request.

    An objective of None was not given and constrains nothing. A request of a `priority` below 0 may be shed.
    `block_hashes` are the chained hashes of the prompt's leading blocks, as the prefix index expects them.
    """

    id: str
    model: str
    input_tokens: int = 0
    slo_ttft_ms: float | None = None
    slo_tpot_ms: float | None = None
    prediction_based: bool = False
    priority: int = 0
    media_items: int = 0
    block_hashes: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
