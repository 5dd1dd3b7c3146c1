"""A continuous-batching engine without a clock: it plans its next steps, says how long they take, and applies them.

The order of work is that of vLLM's V1 scheduler. Running sequences come first: one token for each that decodes, then a
piece of the prompt for each that prefills. Waiting sequences follow in order of arrival. All share one budget of tokens
per step. When blocks run out, the newest running sequence is preempted: it waits again and is recomputed. With the
scheduling policy "priority", the most urgent sequence is admitted first, and the least urgent one is preempted.

A server plans one step at a time, because it must send each token. In virtual time, steps that only decode are planned
together while no sequence begins or ends. Such steps differ only by the KV tokens that each adds.
"""

from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterator
from heapq import heappop, heappush

from simulator.blocks import BlockPool
from simulator.hardware import Hardware
from simulator.plan import Plan, Progress, Step
from simulator.sequence import Sequence

# More steps than a plan ever has.
_MANY_STEPS = 1 << 30


class Engine:
    """An engine. Callers submit and abort at any time, and apply every plan before they ask for the next one.

    A sequence that ends in a step counts as running until the next plan. A caller that applies a step and then waits
    for its duration therefore sees gauges of what is being computed. `hash_tokens` is the length of the prompts' hashed
    pieces.
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
        self._has_priorities = hardware.scheduling_policy == "priority"
        self._submitted = 0
        # The decoding sequences: their number, their KV tokens, and how many need a new block at a step of each phase.
        # A step's phase is minus its number, modulo the block's tokens.
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
        """The running sequences, oldest first, then the waiting ones in order of admission."""
        ended = set(self._ended)
        return [one for one in self._running if one not in ended] + list(self._waiting)

    @property
    def queue(self) -> Iterator[Sequence]:
        """The waiting sequences, in order of admission."""
        return iter(self._waiting)

    def generated(self, sequence: Sequence, after_steps: int | None = None) -> int:
        """Return the output tokens so far, or after `after_steps` of the engine's steps (the latest or later)."""
        since = sequence.decodes_from
        steps = self._steps if after_steps is None else after_steps
        return sequence.total - sequence.prompt_tokens + (0 if since is None else max(steps - since, 0))

    def cached_tokens(self, hashes: tuple[int, ...], prompt_tokens: int) -> int:
        """Return how many tokens of such a prompt are cached now.

        The last token never counts: it must be computed, because the first new token needs its logits.
        """
        if not hashes:
            return 0
        return min(self.blocks.cached_prefix(hashes), (prompt_tokens - 1) // self._piece_tokens) * self._piece_tokens

    def fits(self, tokens: int) -> bool:
        """Return whether a sequence with this many tokens, prompt and output, can ever be completed."""
        return self._blocks_for(tokens) <= self.blocks.capacity

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence. Raise ValueError if it could never be completed."""
        if not self.fits(sequence.end):
            raise ValueError(f"sequence {sequence.id} needs more KV blocks than there are")
        self._submitted += 1
        sequence.order = self._submitted
        if self._has_priorities:
            insort(self._waiting, sequence, key=_rank)
        else:
            self._waiting.append(sequence)

    def abort(self, sequence_id: Hashable) -> None:
        """Drop a sequence and free its blocks. Ignore an unknown id."""
        for sequence in self._running:
            if sequence.id == sequence_id:
                self._take_out(sequence)
                return
        self._waiting = deque(sequence for sequence in self._waiting if sequence.id != sequence_id)

    def step(self) -> Step | None:
        """Plan and apply one step. Its tokens exist once its duration has passed. Return None without work."""
        plan = self.plan(1)
        if plan is None:
            return None
        decoding = [sequence.id for sequence in self._running if sequence.decodes_from is not None]
        progress = self.apply(plan, 1)
        produced = decoding + [s.id for s in plan.prefills if s.decodes_from is not None or s.total == s.end]
        finished = [sequence.id for sequence in progress.finished]
        return Step(plan.first_ms, produced, finished, plan.prefill_tokens, plan.decodes)

    def plan(self, most_steps: int = _MANY_STEPS) -> Plan | None:
        """Return the next steps, at most `most_steps` of them; None without work."""
        self._retire()
        if not self._running and not self._waiting:
            return None
        preempted = self._make_room_for_decodes()
        plan = Plan(decodes=self._decodes)
        budget = self.hardware.max_num_batched_tokens - self._decodes
        if self._prefilling:
            budget, preempted = self._continue_prefills(plan, budget, preempted)
        if preempted:
            # A preempted sequence can't be admitted in this step, but perhaps in the next.
            most_steps = 1
        elif self._waiting and self._admit_waiting(plan, budget):
            most_steps = min(most_steps, self._steps_to_next_block())
        # A preemption since may have removed a decoding sequence.
        plan.decodes = self._decodes
        self._time(plan, most_steps)
        return plan

    def apply(self, plan: Plan, steps: int) -> Progress:
        """Apply the first `steps` steps of the plan."""
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
        decodes, kv_tokens = plan.decodes, self._kv_tokens - self._saved_tokens()
        dense_ms = self._cost.dense_ms(plan.prefill_tokens + decodes)
        attention_ms = self._cost.decode_attention_ms(decodes, kv_tokens) if decodes else 0.0
        plan.first_ms = dense_ms + plan.attention_ms + attention_ms
        if plan.prefills and decodes:
            plan.first_ms += self.hardware.mixed_step_ms
        if plan.prefills or most_steps == 1 or not decodes:
            return
        steps = min(most_steps, self._steps_to_next_stop())
        plan.steps = steps = self._steps_with_room(steps)
        if steps > 1:
            # The steps between the first and the last are taken as linear in the KV tokens.
            last_ms = self._cost.decode_attention_ms(decodes, kv_tokens + (steps - 1) * decodes)
            plan.growth_ms = max((last_ms - attention_ms) / (steps - 1), 0.0)

    def _saved_tokens(self) -> int:
        """Return how many tokens' reading is saved, because several sequences hold the same blocks."""
        if not self.hardware.shared_discount:
            return 0
        saved = self.hardware.shared_discount * self.blocks.repeated * self._piece_tokens
        return min(round(saved), self._kv_tokens)

    def _steps_to_next_stop(self) -> int:
        stops = self._stops
        while not self._is_due(stops[0]):
            heappop(stops)
        return stops[0][0] - self._steps

    def _is_due(self, stop: tuple[int, int, Sequence]) -> bool:
        """Return whether a stop is still valid: its sequence may have been preempted or aborted since."""
        step, _, sequence = stop
        since = sequence.decodes_from
        return since is not None and since + sequence.next_stop - sequence.total == step

    def _steps_with_room(self, steps: int) -> int:
        """Return for how many of `steps` the free blocks suffice; at least one, for which room was made."""
        free, period = self.blocks.free, self._block_tokens
        if (steps // period + 1) * self._decodes <= free:
            return steps
        for ahead in range(steps):
            free -= self._needing[-(self._steps + ahead) % period]
            if free < 0:
                return max(ahead, 1)
        return steps

    def _steps_to_next_block(self) -> int:
        """Return the number of steps up to the first in which a decode takes a block; at most a block's tokens."""
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
        """Preempt the last sequences until the next step's decodes have their blocks. Return whether any was."""
        phase = -self._steps % self._block_tokens
        preempted = False
        while self._needing[phase] > self.blocks.free:
            self._preempt_last()
            preempted = True
        return preempted

    def _continue_prefills(self, plan: Plan, budget: int, preempted: bool) -> tuple[int, bool]:
        for sequence in list(self._prefilling):
            if budget <= 0 or sequence not in self._running:
                break
            tokens = min(sequence.total - sequence.computed, budget)
            needed = self._growth(sequence, tokens)
            while not self._has_room(needed) and sequence in self._running:
                self._preempt_last()
                preempted = True
            if sequence not in self._running:
                break
            self._prefill(plan, sequence, tokens, needed)
            budget -= tokens
        return budget, preempted

    def _admit_waiting(self, plan: Plan, budget: int) -> bool:
        """Admit waiting sequences. Return whether the first one left lacks room and would share idle pieces.

        Such a sequence may fit after a decode takes an idle piece's blocks. Its cached prefix is then shorter, and its
        first piece may need less room.
        """
        waiting, most = self._waiting, self.hardware.max_num_seqs
        while waiting and budget > 0 and len(self._running) < most:
            sequence = waiting[0]
            start = self.cached_tokens(sequence.hashes, sequence.prompt_tokens)
            cached = start // self._piece_tokens
            tokens = min(sequence.total - start, budget)
            needed = self._blocks_for(start + tokens) - cached * self._piece_blocks
            reserved = needed
            if self.hardware.reserve_prompt:
                reserved = self._blocks_for(sequence.total) - cached * self._piece_blocks
            idle = self.blocks.idle_among(sequence.hashes[:cached])
            if not self._has_room(reserved + idle):
                return idle > 0
            self._running[waiting.popleft()] = None
            self._prefilling.append(sequence)
            if sequence.cached_tokens is None:
                plan.attention_ms += self.hardware.request_step_ms
            self._admit(sequence, cached)
            self._prefill(plan, sequence, tokens, needed)
            budget -= tokens
        return False

    def _has_room(self, blocks: int) -> bool:
        """Return whether `blocks` are free besides those that this step's decodes will take."""
        return blocks + self._needing[-self._steps % self._block_tokens] <= self.blocks.free

    def _admit(self, sequence: Sequence, cached: int) -> None:
        sequence.held = list(sequence.hashes[:cached])
        self.blocks.hold(sequence.held)
        sequence.published = cached
        sequence.computed = cached * self._piece_tokens
        # As in vLLM, a sequence that is admitted again after a preemption isn't counted again.
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
        """Publish the prompt's computed whole pieces. A piece that is cached already stays private."""
        whole = min(sequence.computed // self._piece_tokens, len(sequence.hashes))
        for piece in sequence.hashes[sequence.published : whole]:
            if self.blocks.publish(piece):
                sequence.held.append(piece)
                sequence.private -= self._piece_blocks
        sequence.published = max(whole, sequence.published)

    def _begin_decoding(self, sequence: Sequence, progress: Progress) -> None:
        """Add the token that a completed prefill yields: the first one, unless the sequence was preempted before."""
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
        """Collect the decoding sequences that reached their end or a mark."""
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
        """Drop the marks that the sequence has reached, and schedule its next stop."""
        generated = sequence.total - sequence.prompt_tokens
        while sequence.passed_marks < len(sequence.marks) and sequence.marks[sequence.passed_marks] <= generated:
            sequence.passed_marks += 1
        self._order += 1
        heappush(self._stops, (self._steps + sequence.next_stop - sequence.total, self._order, sequence))

    def _settle(self, sequence: Sequence) -> None:
        """Add the tokens and blocks of the steps since `decodes_from` to the sequence."""
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

    def _preempt_last(self) -> None:
        if self._has_priorities:
            sequence = max(self._running, key=_rank)
            self._take_out(sequence)
            insort(self._waiting, sequence, key=_rank)
        else:
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
        """Remove the sequences that the last step completed, and free their blocks."""
        for sequence in self._ended:
            if sequence in self._running:
                del self._running[sequence]
                self._free(sequence)
        self._ended = []

    def _free(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.held, sequence.private)
        sequence.held, sequence.private, sequence.published = [], 0, 0
        sequence.computed = 0


def _rank(sequence: Sequence) -> tuple[int, int]:
    return sequence.rank
