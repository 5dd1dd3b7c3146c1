"""What to measure: prompts and batches that fit into the server's memory and into the time."""

import random
from dataclasses import dataclass
from statistics import median

from lab.calibration.server.asks import Ask, random_prompt
from lab.calibration.server.guard import Guard
from lab.calibration.server.limits import EngineLimits

# Share of the KV cache, and of a request's longest length, that a measurement uses.
_SHARE = 0.8
# Steps that a batch decodes before it gets smaller. A fast engine gets more of them.
_LEAST_STEPS = 26
_MOST_STEPS = 90
# Shares of the whole time: the decoding of a batch before it gets smaller, the longest prompt, and the filling of
# the caches of a batch.
_STAGE = 0.001
_PROMPT = 0.015
_FILL = 0.012
# Prompts that are measured between two looks at the server's metrics.
_ROUNDS = 6
_SHORT = 16
_TEXT_TOKENS = (64, 512)


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches to measure at one context, largest first, and the steps for which each decodes."""

    context: int
    sizes: tuple[int, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Agenda:
    """What one repetition measures. `prompts` are (new tokens, cached tokens before them)."""

    prompts: tuple[tuple[int, int], ...]
    batches: tuple[Batches, ...]
    texts: tuple[int, ...]

    @property
    def parts(self) -> int:
        """The number of parts of a repetition, for a progress bar."""
        contexts = [context for _, context in self.prompts]
        return sum(-(-contexts.count(one) // _ROUNDS) for one in set(contexts)) + len(self.batches) + 1


@dataclass(frozen=True, slots=True)
class _RoughSpeed:
    """The server's rough speed, of a prompt's token and of a step, and the time for all measurements."""

    ms_per_token: float
    step_ms: float
    limit_s: float


async def make_agenda(guard: Guard, rng: random.Random, found: EngineLimits, most_batch: int, limit_s: float) -> Agenda:
    """Measure the server's rough speed, and return what can be repeated some times in `limit_s`."""
    longest = int(min(found.max_model_len - 1, _SHARE * found.capacity_tokens))
    budget = min(found.max_num_batched_tokens, longest)
    prompt = min(budget, 512)
    asks = [[Ask(random_prompt(rng, prompt), 1)] for _ in range(3)] + [[Ask(random_prompt(rng, _SHORT), 40)]]
    *prompts, [decode] = await guard.run(asks)
    ms_per_token = median(timelines[0].ttft_ms for timelines in prompts) / prompt
    step_ms = decode.tpot_ms or 1.0
    longest = max(min(longest, int(_PROMPT * limit_s * 1000 / ms_per_token)), min(budget, longest))
    return Agenda(
        prompts=_prompts(found, longest, budget),
        batches=_batches(found, longest, most_batch, _RoughSpeed(ms_per_token, step_ms, limit_s)),
        texts=tuple(tokens for tokens in _TEXT_TOKENS if tokens < budget),
    )


def _prompts(found: EngineLimits, longest: int, budget: int) -> tuple[tuple[int, int], ...]:
    sizes = [1, *(4**power for power in range(2, 16) if 4**power < 0.7 * budget), budget]
    room = longest - budget
    contexts = [0]
    if found.has_prefix_cache:
        wanted = (room // 4, room)
        contexts += sorted({block for tokens in wanted if (block := tokens // found.block_tokens * found.block_tokens)})
    cells = [(size, context) for size in sizes for context in contexts]
    # Without a prefix cache, the pieces of a long prompt show what earlier tokens cost.
    return (*cells, (longest, 0)) if longest >= 2 * budget else tuple(cells)


def _batches(found: EngineLimits, longest: int, most_batch: int, speed: _RoughSpeed) -> tuple[Batches, ...]:
    steps = round(min(max(_STAGE * speed.limit_s * 1000 / speed.step_ms, _LEAST_STEPS), _MOST_STEPS))
    made = []
    for context in sorted({_SHORT, max(longest // 8, _SHORT), max(longest // 2, _SHORT)}):
        tokens = min(_SHARE * found.capacity_tokens, _FILL * speed.limit_s * 1000 / speed.ms_per_token)
        largest = int(min(most_batch, found.max_num_seqs, max(tokens // (context + 8 * steps), 2)))
        sizes = sorted({1, largest, *(2**power for power in range(1, 12) if 2**power < largest)}, reverse=True)
        ahead = largest * context // found.max_num_batched_tokens
        room = (found.max_model_len - context - 1 - ahead) // len(sizes)
        if room >= _LEAST_STEPS:
            made.append(Batches(context, tuple(sizes), min(steps, room)))
    return tuple(made)


def groups_of_prompts(rng: random.Random, agenda: Agenda) -> list[list[tuple[int, int]]]:
    """Return the prompts to measure in random order, some at a time."""
    groups = []
    # Those with one context stand together, so that it is cached once.
    for context in {context for _, context in agenda.prompts}:
        cells = [cell for cell in agenda.prompts if cell[1] == context]
        rng.shuffle(cells)
        groups += [cells[at : at + _ROUNDS] for at in range(0, len(cells), _ROUNDS)]
    rng.shuffle(groups)
    return groups
