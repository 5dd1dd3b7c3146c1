"""A continuous-batching engine that knows no clock: it plans its next steps, says how long they take, and applies them.

The order of work is that of vLLM's V1 scheduler: running sequences first (a token for each that decodes, a piece of
the prompt for each that is still being prefilled), then waiting ones in order of arrival, all within one budget of
tokens a step. When blocks run out, the newest running sequence is put back and will be computed again.

A server plans one step at a time, since each of its tokens has to be sent. In virtual time steps that only decode, and
in which nobody begins or ends, are planned together: they differ by the KV tokens that each adds, and nothing else.
"""

from collections import deque
from collections.abc import Hashable, Iterator
from heapq import heappop, heappush

from simulator.blocks import BlockPool
from simulator.hardware import Hardware
from simulator.plan import Plan, Progress, Step
from simulator.sequence import Sequence

_MANY_STEPS = 1 << 30


class Engine:
    """Submit and abort at any time; plan while there is work, and apply every plan before the next.

    A step's sequences hold their place until the next one is planned: whoever lets the time pass in between sees
    gauges that count what is being computed. `hash_tokens` is the length of the hashed pieces of prompts.
    """

    def __init__(self, hardware: Hardware, hash_tokens: int | None = None) -> None:
        self.hardware = hardware
        self._cost = hardware.cost
        self._block_tokens = hardware.block_tokens
        self._piece_tokens = hash_tokens or hardware.block_tokens
        if self._piece_tokens % self._block_tokens:
            raise ValueError(f"hash_tokens: expected a multiple of {self._block_tokens}, got {hash_tokens}")
        self._piece_blocks = self._piece_tokens // self._block_tokens
        self.blocks = BlockPool(hardware.num_blocks, self._piece_blocks)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}
        self._prefilling: list[Sequence] = []
        self._ended: list[Sequence] = []
        # Of those that decode: how many, their KV tokens, and how many need a block at steps of each phase.
        self._decodes = 0
        self._kv_tokens = 0
        self._needing = [0] * self._block_tokens
        self._stops: list[tuple[int, int, Sequence]] = []
        self._order = 0
        self._steps = 0
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

    @property
    def sequences(self) -> list[Sequence]:
        """All that run, oldest first, then all that wait, in the order in which they will be admitted."""
        ended = set(self._ended)
        return [one for one in self._running if one not in ended] + list(self._waiting)

    @property
    def queue(self) -> Iterator[Sequence]:
        """Those of `sequences` that wait."""
        return iter(self._waiting)

    def generated(self, sequence: Sequence) -> int:
        """Output tokens so far."""
        since = sequence.decodes_from
        return sequence.total - sequence.prompt_tokens + (0 if since is None else self._steps - since)

    def cached_tokens(self, hashes: tuple[int, ...], prompt_tokens: int) -> int:
        """How much of such a prompt would not have to be computed now.

        Never all of it: its last token is computed for the logits that the first new token needs.
        """
        if not hashes:
            return 0
        return min(self.blocks.cached_prefix(hashes), (prompt_tokens - 1) // self._piece_tokens) * self._piece_tokens

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens, prompt and output, can ever be finished."""
        return self._blocks_for(tokens) <= self.blocks.capacity

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; ValueError when it could never be finished."""
        if not self.fits(sequence.end):
            raise ValueError(f"sequence {sequence.id} needs more KV blocks than there are")
        self._waiting.append(sequence)

    def abort(self, sequence_id: Hashable) -> None:
        """Forgets a sequence and frees its blocks; unknown ids are ignored."""
        for sequence in self._running:
            if sequence.id == sequence_id:
                self._take_out(sequence)
                return
        self._waiting = deque(sequence for sequence in self._waiting if sequence.id != sequence_id)

    def step(self) -> Step | None:
        """Plans and applies one step, whose tokens are there when it has passed; None without work."""
        plan = self.plan(1)
        if plan is None:
            return None
        decoding = [sequence.id for sequence in self._running if sequence.decodes_from is not None]
        progress = self.apply(plan, 1)
        produced = decoding + [s.id for s in plan.prefills if s.decodes_from is not None or s.total == s.end]
        finished = [sequence.id for sequence in progress.finished]
        return Step(plan.first_ms, produced, finished, plan.prefill_tokens, plan.decodes)

    def plan(self, most_steps: int = _MANY_STEPS) -> Plan | None:
        """The next steps, at most so many together; None without work."""
        self._retire()
        if not self._running and not self._waiting:
            return None
        preempted = self._make_room_for_decodes()
        plan = Plan(decodes=self._decodes)
        budget = self.hardware.max_num_batched_tokens - self._decodes
        if self._prefilling:
            budget, preempted = self._continue_prefills(plan, budget, preempted)
        if preempted:
            # Nobody is admitted in this step, and perhaps in the next.
            most_steps = 1
        elif self._waiting and self._admit_waiting(plan, budget):
            most_steps = min(most_steps, self._steps_to_next_block())
        # A preemption may have taken a sequence that was counted.
        plan.decodes = self._decodes
        self._time(plan, most_steps)
        return plan

    def apply(self, plan: Plan, steps: int) -> Progress:
        """Lets so many of the plan's steps have happened."""
        self._take_decode_blocks(steps)
        self._steps += steps
        self._kv_tokens += self._decodes * steps
        progress = Progress()
        self._stop(progress)
        for sequence in plan.prefills:
            if sequence.computed == sequence.total and sequence in self._running:
                self._begin_decoding(sequence, progress)
        self._ended = progress.finished
        return progress

    def _time(self, plan: Plan, most_steps: int) -> None:
        decodes, kv_tokens = plan.decodes, self._kv_tokens
        dense_ms = self._cost.dense_ms(plan.prefill_tokens + decodes)
        attention_ms = self._cost.decode_attention_ms(decodes, kv_tokens) if decodes else 0.0
        plan.first_ms = dense_ms + plan.attention_ms + attention_ms
        if plan.prefills or most_steps == 1 or not decodes:
            return
        steps = min(most_steps, self._steps_to_next_stop())
        plan.steps = steps = self._steps_with_room(steps)
        if steps > 1:
            # What lies between is taken as linear in the KV tokens.
            last_ms = self._cost.decode_attention_ms(decodes, kv_tokens + (steps - 1) * decodes)
            plan.growth_ms = max((last_ms - attention_ms) / (steps - 1), 0.0)

    def _steps_to_next_stop(self) -> int:
        stops = self._stops
        while not self._is_due(stops[0]):
            heappop(stops)
        return stops[0][0] - self._steps

    def _is_due(self, stop: tuple[int, int, Sequence]) -> bool:
        """Whether a stop still holds: its sequence may have been put back, or taken out."""
        step, _, sequence = stop
        since = sequence.decodes_from
        return since is not None and since + sequence.next_stop - sequence.total == step

    def _steps_with_room(self, steps: int) -> int:
        """How many of these steps the free blocks suffice for; at least one, for which room was made."""
        free, period = self.blocks.free, self._block_tokens
        if (steps // period + 1) * self._decodes <= free:
            return steps
        for ahead in range(steps):
            free -= self._needing[-(self._steps + ahead) % period]
            if free < 0:
                return max(ahead, 1)
        return steps

    def _steps_to_next_block(self) -> int:
        """Steps up to the first, if any, for which a decode takes a block."""
        phases = (-(self._steps + ahead) % self._block_tokens for ahead in range(self._block_tokens))
        return next((ahead + 1 for ahead, phase in enumerate(phases) if self._needing[phase]), self._block_tokens)

    def _take_decode_blocks(self, steps: int) -> None:
        cycles, rest = divmod(steps, self._block_tokens)
        needed = cycles * self._decodes
        for ahead in range(rest):
            needed += self._needing[-(self._steps + ahead) % self._block_tokens]
        if needed and not self.blocks.take(needed):
            raise AssertionError("planned steps ran out of blocks")

    def _make_room_for_decodes(self) -> bool:
        """Puts the newest back until the next step's decodes have their blocks; whether that was needed."""
        phase = -self._steps % self._block_tokens
        preempted = False
        while self._needing[phase] > self.blocks.free:
            self._preempt_newest()
            preempted = True
        return preempted

    def _continue_prefills(self, plan: Plan, budget: int, preempted: bool) -> tuple[int, bool]:
        for sequence in list(self._prefilling):
            if budget <= 0 or sequence not in self._running:
                break
            tokens = min(sequence.total - sequence.computed, budget)
            needed = self._growth(sequence, tokens)
            while not self._has_room(needed) and sequence in self._running:
                self._preempt_newest()
                preempted = True
            if sequence not in self._running:
                break
            self._prefill(plan, sequence, tokens, needed)
            budget -= tokens
        return budget, preempted

    def _admit_waiting(self, plan: Plan, budget: int) -> bool:
        """Whether someone who wants to share idle pieces lacks room.

        Whoever takes their blocks lets it begin earlier in its prompt, with a piece that may need less room.
        """
        waiting, most = self._waiting, self.hardware.max_num_seqs
        while waiting and budget > 0 and len(self._running) < most:
            sequence = waiting[0]
            start = self.cached_tokens(sequence.hashes, sequence.prompt_tokens)
            cached = start // self._piece_tokens
            tokens = min(sequence.total - start, budget)
            needed = self._blocks_for(start + tokens) - cached * self._piece_blocks
            idle = self.blocks.idle_among(sequence.hashes[:cached])
            if not self._has_room(needed + idle):
                return idle > 0
            self._running[waiting.popleft()] = None
            self._prefilling.append(sequence)
            self._admit(sequence, cached)
            self._prefill(plan, sequence, tokens, needed)
            budget -= tokens
        return False

    def _has_room(self, blocks: int) -> bool:
        """Whether so many can be taken beside those that this step's decodes will take."""
        return blocks + self._needing[-self._steps % self._block_tokens] <= self.blocks.free

    def _admit(self, sequence: Sequence, cached: int) -> None:
        sequence.held = list(sequence.hashes[:cached])
        self.blocks.hold(sequence.held)
        sequence.published = cached
        sequence.computed = cached * self._piece_tokens
        # As in vLLM, one that comes back after a preemption isn't counted again.
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
            self.prompt_tokens_queried += sequence.prompt_tokens
            self.prompt_tokens_cached += sequence.computed

    def _growth(self, sequence: Sequence, tokens: int) -> int:
        return self._blocks_for(sequence.computed + tokens) - self._blocks_for(sequence.computed)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self._block_tokens)

    def _prefill(self, plan: Plan, sequence: Sequence, tokens: int, blocks: int) -> None:
        self.blocks.take(blocks)
        sequence.private += blocks
        plan.prefills.append(sequence)
        plan.prefill_tokens += tokens
        plan.attention_ms += self._cost.prefill_attention_ms(tokens, sequence.computed)
        sequence.computed += tokens
        if sequence.hashes:
            self._publish(sequence)

    def _publish(self, sequence: Sequence) -> None:
        """Lets the prompt's whole pieces be shared; a copy of what is there already stays the sequence's own."""
        whole = min(sequence.computed // self._piece_tokens, len(sequence.hashes))
        for piece in sequence.hashes[sequence.published : whole]:
            if self.blocks.publish(piece):
                sequence.held.append(piece)
                sequence.private -= self._piece_blocks
        sequence.published = max(whole, sequence.published)

    def _begin_decoding(self, sequence: Sequence, progress: Progress) -> None:
        """The token that a whole prefill yields, the first one unless the sequence had been put back."""
        self._prefilling.remove(sequence)
        if sequence.total == sequence.prompt_tokens:
            progress.first.append(sequence)
        sequence.total += 1
        if sequence.total == sequence.end:
            progress.finished.append(sequence)
            return
        sequence.decodes_from = self._steps
        self._decodes += 1
        self._kv_tokens += sequence.computed
        self._needing[(sequence.computed - self._steps) % self._block_tokens] += 1
        self._pass_marks(sequence)

    def _stop(self, progress: Progress) -> None:
        """Takes the sequences that came to their end or to a mark."""
        stops = self._stops
        while stops and stops[0][0] <= self._steps:
            stop = heappop(stops)
            sequence = stop[2]
            if not self._is_due(stop):
                continue
            self._settle(sequence)
            if sequence.total == sequence.end:
                self._leave_decoding(sequence)
                progress.finished.append(sequence)
            else:
                progress.marked.append(sequence)
                self._pass_marks(sequence)

    def _pass_marks(self, sequence: Sequence) -> None:
        """Sets the next stop of a sequence that decodes from now on."""
        generated = sequence.total - sequence.prompt_tokens
        while sequence.passed_marks < len(sequence.marks) and sequence.marks[sequence.passed_marks] <= generated:
            sequence.passed_marks += 1
        self._order += 1
        heappush(self._stops, (self._steps + sequence.next_stop - sequence.total, self._order, sequence))

    def _settle(self, sequence: Sequence) -> None:
        """Writes down what the steps since `decodes_from` have brought."""
        assert sequence.decodes_from is not None  # noqa: S101 (called for those that decode)
        steps = self._steps - sequence.decodes_from
        sequence.private += self._growth(sequence, steps)
        sequence.total += steps
        sequence.computed += steps
        sequence.decodes_from = self._steps

    def _leave_decoding(self, sequence: Sequence) -> None:
        self._decodes -= 1
        self._kv_tokens -= sequence.computed
        self._needing[(sequence.computed - self._steps) % self._block_tokens] -= 1
        sequence.decodes_from = None

    def _preempt_newest(self) -> None:
        sequence = next(reversed(self._running))
        self._take_out(sequence)
        self._waiting.appendleft(sequence)
        self.preemptions += 1

    def _take_out(self, sequence: Sequence) -> None:
        del self._running[sequence]
        if sequence.decodes_from is not None:
            self._settle(sequence)
            self._leave_decoding(sequence)
        elif sequence in self._prefilling:
            self._prefilling.remove(sequence)
        self._free(sequence)

    def _retire(self) -> None:
        """Takes out the sequences that the last step finished."""
        for sequence in self._ended:
            if sequence in self._running:
                del self._running[sequence]
                self._free(sequence)
        self._ended = []

    def _free(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.held, sequence.private)
        sequence.held, sequence.private, sequence.published = [], 0, 0
        sequence.computed = 0
