"""A request in the engine."""

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Sequence:
    """`hashes` are those of the prompt's whole pieces.

    `total` tokens have to be in the KV cache before the next one can be generated, `computed` of them are; while the
    sequence decodes, both are as they were at step `decodes_from`. `cached_tokens` is known once it has been admitted.
    The engine stops at the output tokens that `marks` counts, so that someone may look; the last token needs no mark.
    """

    id: Hashable
    hashes: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    marks: tuple[int, ...] = ()
    total: int = field(init=False)
    end: int = field(init=False)
    computed: int = 0
    decodes_from: int | None = None
    cached_tokens: int | None = None
    held: list[int] = field(default_factory=list)
    private: int = 0
    published: int = 0
    passed_marks: int = 0

    def __post_init__(self) -> None:
        self.total = self.prompt_tokens
        self.end = self.prompt_tokens + self.output_tokens

    @property
    def next_stop(self) -> int:
        """The value of `total` at which to stop next."""
        if self.passed_marks < len(self.marks):
            return min(self.prompt_tokens + self.marks[self.passed_marks], self.end)
        return self.end
