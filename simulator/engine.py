"""A continuous-batching engine that knows no clock: each step says how long it takes and which tokens it yields.

The order of work is that of vLLM's V1 scheduler: running sequences first (a token for each that decodes, a piece of
the prompt for each that is still being prefilled), then waiting ones in order of arrival, all within one budget of
tokens a step. When blocks run out, the newest running sequence is put back and will be computed again.
"""

from collections import deque
from dataclasses import dataclass, field

from simulator.blocks import BlockPool
from simulator.hardware import Hardware


@dataclass(slots=True)
class Sequence:
    """A request in the engine. `hashes` are those of the prompt's whole blocks."""

    id: str
    hashes: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    computed: int = 0
    generated: int = 0
    cached_tokens: int = 0
    held: list[int] = field(default_factory=list)
    private: int = 0

    @property
    def total(self) -> int:
        """Tokens to be in the KV cache before the next one can be generated."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True)
class Step:
    """`produced` are the ids of the sequences that got a token, `finished` those of them that are done."""

    duration_ms: float
    produced: list[str]
    finished: list[str]
    prefill_tokens: int
    decodes: int


@dataclass(slots=True)
class _Plan:
    budget: int
    prefill_tokens: int = 0
    attention_pairs: int = 0
    decodes: int = 0
    kv_tokens: int = 0
    preempted: bool = False
    scheduled: list[Sequence] = field(default_factory=list)


class Engine:
    """Submit and abort at any time; step while there is work."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.blocks = BlockPool(hardware.num_blocks)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self.preemptions = 0
        self.prompt_tokens_queried = 0
        self.prompt_tokens_cached = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def kv_usage(self) -> float:
        return self.blocks.used / self.blocks.capacity

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens, prompt and output, can ever be finished."""
        return -(-tokens // self.hardware.block_tokens) <= self.blocks.capacity

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; ValueError when it could never be finished."""
        if not self.fits(sequence.prompt_tokens + sequence.output_tokens):
            raise ValueError(f"sequence {sequence.id} needs more KV blocks than there are")
        self._waiting.append(sequence)

    def abort(self, sequence_id: str) -> None:
        """Forgets a sequence and frees its blocks; unknown ids are ignored."""
        for sequence in self._running:
            if sequence.id == sequence_id:
                self._running.remove(sequence)
                self._free(sequence)
                return
        self._waiting = deque(sequence for sequence in self._waiting if sequence.id != sequence_id)

    def step(self) -> Step | None:
        """Plans and applies the next step, whose tokens are there when it has passed; None without work."""
        if not self._running and not self._waiting:
            return None
        plan = _Plan(self.hardware.max_num_batched_tokens)
        self._schedule_running(plan)
        if not plan.preempted:
            self._schedule_waiting(plan)
        produced, finished = self._advance(plan)
        duration_ms = self.hardware.step_ms(plan.prefill_tokens, plan.attention_pairs, plan.decodes, plan.kv_tokens)
        return Step(duration_ms, produced, finished, plan.prefill_tokens, plan.decodes)

    def _schedule_running(self, plan: _Plan) -> None:
        for sequence in list(self._running):
            if plan.budget == 0:
                return
            if sequence not in self._running:
                continue
            tokens = min(sequence.total - sequence.computed, plan.budget)
            while not self._grow(sequence, tokens):
                plan.preempted = True
                if self._preempt_newest() is sequence:
                    break
            else:
                self._add(plan, sequence, tokens)

    def _schedule_waiting(self, plan: _Plan) -> None:
        while self._waiting and plan.budget and len(self._running) < self.hardware.max_num_seqs:
            sequence = self._waiting[0]
            cached = self._cached_blocks(sequence)
            start = cached * self.hardware.block_tokens
            tokens = min(sequence.total - start, plan.budget)
            needed = -(-(start + tokens) // self.hardware.block_tokens) - cached
            if needed + self.blocks.idle_among(sequence.hashes[:cached]) > self.blocks.free:
                return
            self._waiting.popleft()
            self._running.append(sequence)
            sequence.held = list(sequence.hashes[:cached])
            sequence.computed = sequence.cached_tokens = start
            self.blocks.hold(sequence.held)
            self.prompt_tokens_queried += sequence.prompt_tokens
            self.prompt_tokens_cached += start
            self._grow(sequence, tokens)
            self._add(plan, sequence, tokens)

    def _cached_blocks(self, sequence: Sequence) -> int:
        """Never the whole prompt: its last token is computed for the logits that the first new token needs."""
        cached = self.blocks.cached_prefix(sequence.hashes)
        return min(cached, (sequence.prompt_tokens - 1) // self.hardware.block_tokens)

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        blocks = -(-(sequence.computed + tokens) // self.hardware.block_tokens)
        needed = blocks - len(sequence.held) - sequence.private
        if needed > 0:
            if not self.blocks.take(needed):
                return False
            sequence.private += needed
        return True

    def _preempt_newest(self) -> Sequence:
        sequence = self._running.pop()
        self._free(sequence)
        self._waiting.appendleft(sequence)
        self.preemptions += 1
        return sequence

    def _free(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.held, sequence.private)
        sequence.held, sequence.private, sequence.computed = [], 0, 0

    @staticmethod
    def _add(plan: _Plan, sequence: Sequence, tokens: int) -> None:
        plan.budget -= tokens
        plan.scheduled.append(sequence)
        if tokens == 1 and sequence.generated:
            plan.decodes += 1
            plan.kv_tokens += sequence.computed
        else:
            plan.prefill_tokens += tokens
            plan.attention_pairs += tokens * (sequence.computed + tokens // 2)
        sequence.computed += tokens

    def _advance(self, plan: _Plan) -> tuple[list[str], list[str]]:
        produced, finished = [], []
        for sequence in plan.scheduled:
            # A later sequence of the same step may have put this one back.
            if not sequence.computed:
                continue
            self._publish(sequence)
            if sequence.computed < sequence.total:
                continue
            sequence.generated += 1
            produced.append(sequence.id)
            if sequence.generated >= sequence.output_tokens:
                finished.append(sequence.id)
                self._free(sequence)
        if finished:
            done = set(finished)
            self._running = [sequence for sequence in self._running if sequence.id not in done]
        return produced, finished

    def _publish(self, sequence: Sequence) -> None:
        """Whole prompt blocks can be shared once they are computed, as long as all before them are shared too."""
        whole = min(sequence.computed // self.hardware.block_tokens, len(sequence.hashes))
        while len(sequence.held) < whole and self.blocks.publish(sequence.hashes[len(sequence.held)]):
            sequence.held.append(sequence.hashes[len(sequence.held)])
            sequence.private -= 1
