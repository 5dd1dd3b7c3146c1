"""A request inside the engine."""

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Sequence:
    """A request inside the engine. `hashes` are those of the prompt's whole pieces.

    `total` tokens must be in the KV cache before the next one can be generated; `computed` of them are in it. While
    the sequence decodes, both numbers are those of step `decodes_from`. `cached_tokens` is None until the sequence is
    admitted for the first time. The engine ends a plan at the output token counts in `marks`, and at the last token.
    A lower `priority` goes first, with the scheduling policy "priority"; the engine numbers sequences in `order`.
    """

    id: Hashable
    hashes: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    marks: tuple[int, ...] = ()
    priority: int = 0
    order: int = field(default=0, init=False)
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
    def rank(self) -> tuple[int, int]:
        """The place in the queue of an engine with priorities: the priority, then the order of arrival."""
        return self.priority, self.order

    @property
    def next_stop(self) -> int:
        """The value of `total` at the next mark or at the end."""
        if self.passed_marks < len(self.marks):
            return min(self.prompt_tokens + self.marks[self.passed_marks], self.end)
        return self.end
