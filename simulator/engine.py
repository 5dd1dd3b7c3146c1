"""A continuous-batching engine that knows no clock: each step says how long it takes and which tokens it yields.

The order of work is that of vLLM's V1 scheduler: running sequences first (a token for each that decodes, a piece of
the prompt for each that is still being prefilled), then waiting ones in order of arrival, all within one budget of
tokens a step. When blocks run out, the newest running sequence is put back and will be computed again.
"""

from collections import deque
from dataclasses import dataclass, field

from simulator.blocks import BlockPool
from simulator.hardware import Hardware


@dataclass(slots=True, eq=False)
class Sequence:
    """A request in the engine. `hashes` are those of the prompt's whole blocks.

    `total` tokens have to be in the KV cache before the next one can be generated, `computed` of them are;
    `room` is for how many its blocks suffice. `cached_tokens` is known once the sequence has been admitted.
    """

    id: str
    hashes: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    total: int = field(init=False)
    end: int = field(init=False)
    computed: int = 0
    room: int = 0
    cached_tokens: int | None = None
    held: list[int] = field(default_factory=list)
    private: int = 0
    published: int = 0

    def __post_init__(self) -> None:
        self.total = self.prompt_tokens
        self.end = self.prompt_tokens + self.output_tokens


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
    """What a step computes: one token for each of `decodes`, and pieces of the prompts of `prefills`."""

    budget: int
    decodes: list[Sequence] = field(default_factory=list)
    prefills: list[Sequence] = field(default_factory=list)
    prefill_tokens: int = 0
    prefill_attention_ms: float = 0.0
    kv_tokens: int = 0
    preempted: bool = False


class Engine:
    """Submit and abort at any time; step while there is work.

    A step's sequences hold their place until the next step is planned: whoever lets the time pass in between sees
    gauges that count what is being computed.
    """

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.blocks = BlockPool(hardware.num_blocks)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._ended: list[Sequence] = []
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
        return self._blocks_for(tokens) <= self.blocks.capacity

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; ValueError when it could never be finished."""
        if not self.fits(sequence.end):
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
        self._retire()
        if not self._running and not self._waiting:
            return None
        plan = _Plan(self.hardware.max_num_batched_tokens)
        self._schedule_running(plan)
        if not plan.preempted:
            self._schedule_waiting(plan)
        decodes = len(plan.decodes)
        cost = self.hardware.cost
        duration_ms = cost.dense_ms(plan.prefill_tokens + decodes) + plan.prefill_attention_ms
        duration_ms += cost.decode_attention(decodes, plan.kv_tokens)[0]
        produced = self._produce(plan)
        return Step(duration_ms, produced, [sequence.id for sequence in self._ended], plan.prefill_tokens, decodes)

    def _schedule_running(self, plan: _Plan) -> None:
        # This loop runs once a token: what most tokens need is written out, what few need is called.
        running, decodes, kv_tokens, budget, index = self._running, plan.decodes, 0, plan.budget, 0
        while index < len(running) and budget:
            sequence = running[index]
            computed = sequence.computed
            tokens = sequence.total - computed
            if tokens > budget:
                tokens = budget
            if computed + tokens > sequence.room and not self._make_room(plan, sequence, tokens):
                break
            if tokens == 1 and sequence.total > sequence.prompt_tokens:
                decodes.append(sequence)
                kv_tokens += computed
                sequence.computed = computed + 1
            else:
                self._prefill(plan, sequence, tokens)
            budget -= tokens
            index += 1
        plan.kv_tokens, plan.budget = kv_tokens, budget

    def _schedule_waiting(self, plan: _Plan) -> None:
        while self._waiting and plan.budget and len(self._running) < self.hardware.max_num_seqs:
            sequence = self._waiting[0]
            cached = self._cached_blocks(sequence)
            start = cached * self.hardware.block_tokens
            tokens = min(sequence.total - start, plan.budget)
            needed = self._blocks_for(start + tokens) - cached
            if needed + self.blocks.idle_among(sequence.hashes[:cached]) > self.blocks.free:
                return
            self._running.append(self._waiting.popleft())
            self._admit(sequence, cached)
            self._grow(sequence, tokens)
            self._prefill(plan, sequence, tokens)
            plan.budget -= tokens

    def _cached_blocks(self, sequence: Sequence) -> int:
        """Never the whole prompt: its last token is computed for the logits that the first new token needs."""
        cached = self.blocks.cached_prefix(sequence.hashes)
        return min(cached, (sequence.prompt_tokens - 1) // self.hardware.block_tokens)

    def _admit(self, sequence: Sequence, cached: int) -> None:
        sequence.held = list(sequence.hashes[:cached])
        self.blocks.hold(sequence.held)
        sequence.published = cached
        sequence.computed = sequence.room = cached * self.hardware.block_tokens
        # As in vLLM, one that comes back after a preemption isn't counted again.
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
            self.prompt_tokens_queried += sequence.prompt_tokens
            self.prompt_tokens_cached += sequence.computed

    def _make_room(self, plan: _Plan, sequence: Sequence, tokens: int) -> bool:
        """Room for so many more tokens, at the cost of newer sequences; False when it was the newest itself."""
        while not self._grow(sequence, tokens):
            plan.preempted = True
            if self._preempt_newest() is sequence:
                return False
        return True

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        needed = self._blocks_for(sequence.computed + tokens - sequence.room)
        if not self.blocks.take(needed):
            return False
        sequence.private += needed
        sequence.room += needed * self.hardware.block_tokens
        return True

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.hardware.block_tokens)

    def _preempt_newest(self) -> Sequence:
        sequence = self._running.pop()
        self._free(sequence)
        self._waiting.appendleft(sequence)
        self.preemptions += 1
        return sequence

    def _prefill(self, plan: _Plan, sequence: Sequence, tokens: int) -> None:
        plan.prefills.append(sequence)
        plan.prefill_tokens += tokens
        plan.prefill_attention_ms += self.hardware.cost.prefill_attention_ms(tokens, sequence.computed)
        sequence.computed += tokens
        self._publish(sequence)

    def _publish(self, sequence: Sequence) -> None:
        """Lets the prompt's whole blocks be shared; a copy of what is there already stays the sequence's own."""
        whole = min(sequence.computed // self.hardware.block_tokens, len(sequence.hashes))
        for block in sequence.hashes[sequence.published : whole]:
            if self.blocks.publish(block):
                sequence.held.append(block)
                sequence.private -= 1
        sequence.published = max(whole, sequence.published)

    def _produce(self, plan: _Plan) -> list[str]:
        """A token for every sequence that is fully computed; returns their ids."""
        ready = plan.decodes
        ready.extend([sequence for sequence in plan.prefills if sequence.computed == sequence.total])
        for sequence in ready:
            sequence.total += 1
            if sequence.total == sequence.end:
                self._ended.append(sequence)
        return [sequence.id for sequence in ready]

    def _retire(self) -> None:
        """Takes out the sequences that the last step finished."""
        if not self._ended:
            return
        for sequence in self._ended:
            self._free(sequence)
        self._running = [sequence for sequence in self._running if sequence.total < sequence.end]
        self._ended = []

    def _free(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.held, sequence.private)
        sequence.held, sequence.private, sequence.published = [], 0, 0
        sequence.computed = sequence.room = 0
