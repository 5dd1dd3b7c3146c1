import dataclasses
from collections.abc import Hashable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.engine import Engine
from simulator.hardware import PRESETS
from simulator.plan import Plan
from simulator.prompt import block_hashes
from simulator.sequence import Sequence

SMALL = dataclasses.replace(PRESETS["fast"], num_blocks=40, max_num_seqs=4, max_num_batched_tokens=64)


def sequence(name: str, prompt: int = 32, output: int = 4, text: bytes | None = None) -> Sequence:
    hashes = block_hashes(text or name.encode().ljust(prompt * 4, b"."), 16)
    return Sequence(name, hashes, prompt, output)


def run(engine: Engine) -> tuple[dict[Hashable, int], list[Hashable], float]:
    """Run all steps. Return the tokens by sequence, the order in which sequences ended, and the time in ms."""
    tokens: dict[Hashable, int] = {}
    ended: list[Hashable] = []
    elapsed_ms = 0.0
    while step := engine.step():
        assert step.prefill_tokens + step.decodes <= engine.hardware.max_num_batched_tokens
        assert engine.running <= engine.hardware.max_num_seqs
        assert 0 <= engine.blocks.used <= engine.blocks.capacity
        elapsed_ms += step.duration_ms
        for name in step.produced:
            tokens[name] = tokens.get(name, 0) + 1
        ended += step.finished
    return tokens, ended, elapsed_ms


requests = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 60), st.integers(0, 2)), min_size=1, max_size=25)


@given(requests)
def test_every_request_gets_its_tokens_and_returns_its_blocks(asked: list[tuple[int, int, int]]) -> None:
    engine = Engine(SMALL)
    for index, (prompt, output, family) in enumerate(asked):
        engine.submit(sequence(str(index), prompt, output, bytes([family]) * prompt * 4))
    tokens, ended, _ = run(engine)
    assert tokens == {str(index): output for index, (_, output, _) in enumerate(asked)}
    assert sorted(map(str, ended)) == sorted(map(str, tokens))
    assert engine.blocks.free == engine.blocks.capacity
    assert (engine.blocks.used, engine.running, engine.waiting) == (0, 0, 0)


@given(requests, st.lists(st.integers(0, 24), max_size=25))
def test_an_abort_at_any_time_frees_the_blocks(asked: list[tuple[int, int, int]], aborted: list[int]) -> None:
    engine = Engine(SMALL)
    for index, (prompt, output, family) in enumerate(asked):
        engine.submit(sequence(str(index), prompt, output, bytes([family]) * prompt * 4))
    for index in aborted:
        engine.step()
        engine.abort(str(index))
    run(engine)
    assert engine.blocks.used == 0


@given(requests)
def test_first_tokens_come_in_order_of_arrival(asked: list[tuple[int, int, int]]) -> None:
    engine = Engine(dataclasses.replace(SMALL, num_blocks=1000))
    first: dict[Hashable, int] = {}
    for index, (prompt, output, _) in enumerate(asked):
        engine.submit(sequence(str(index), prompt, output))
    while step := engine.step():
        for name in step.produced:
            first.setdefault(name, len(first))
    assert [first[str(index)] for index in range(len(asked))] == list(range(len(asked)))


def test_a_step_takes_as_long_as_the_hardwares_cost() -> None:
    engine, cost = Engine(SMALL), SMALL.cost
    engine.submit(sequence("one", 32, 3))
    prefill, decode = engine.step(), engine.step()
    assert prefill
    assert decode
    assert prefill.duration_ms == cost.dense_ms(32) + cost.prefill_attention_ms(32, 0)
    assert decode.duration_ms == cost.dense_ms(1) + cost.decode_attention_ms(1, 32)


@given(requests, st.sampled_from([40, 60, 1000]))
@example([(167, 55, 1), (171, 33, 2), (157, 11, 3), (158, 24, 0)], 40)
def test_steps_planned_together_equal_single_steps(asked: list[tuple[int, int, int]], num_blocks: int) -> None:
    hardware = dataclasses.replace(SMALL, num_blocks=num_blocks)
    one_by_one, together = Engine(hardware), Engine(hardware)
    for engine in (one_by_one, together):
        for index, (prompt, output, family) in enumerate(asked):
            engine.submit(sequence(str(index), prompt, output, bytes([family]) * prompt * 4))
    ended: list[Hashable] = []
    elapsed_ms = 0.0
    while plan := together.plan():
        ended += [sequence.id for sequence in together.apply(plan, plan.steps).finished]
        elapsed_ms += plan.duration_ms(plan.steps)
    _, expected, expected_ms = run(one_by_one)
    assert ended == expected
    assert elapsed_ms == pytest.approx(expected_ms)
    assert together.preemptions == one_by_one.preemptions
    assert together.blocks.used == 0


@given(st.lists(st.integers(1, 70), max_size=5, unique=True).map(sorted), st.integers(1, 60))
def test_a_plan_ends_at_each_mark_and_at_the_end(marks: list[int], output: int) -> None:
    engine, seen = Engine(SMALL), []
    watched = sequence("watched", 20, output)
    watched.marks = tuple(marks)
    engine.submit(watched)
    engine.submit(sequence("other", 30, 33))
    while plan := engine.plan():
        progress = engine.apply(plan, plan.steps)
        seen += [s.total - s.prompt_tokens for s in (*progress.first, *progress.marked) if s is watched]
    assert seen == sorted({1, *(mark for mark in marks if mark < output)})


@given(st.floats(1, 100), st.floats(0, 1), st.integers(1, 500), st.floats(0, 1.2))
def test_a_plan_is_cut_after_the_step_in_progress(first_ms: float, growth: float, steps: int, share: float) -> None:
    plan = Plan(steps, first_ms, growth_ms=growth * first_ms)
    elapsed_ms = share * plan.duration_ms(steps)
    begun = plan.steps_begun_by(elapsed_ms)
    assert plan.duration_ms(begun - 1) <= elapsed_ms * (1 + 1e-6) + 1e-6
    assert begun == steps or plan.duration_ms(begun) >= elapsed_ms * (1 - 1e-6) - 1e-6


def test_a_sequence_counts_as_running_until_its_last_step_has_passed() -> None:
    engine = Engine(SMALL)
    engine.submit(sequence("one", 32, 1))
    step = engine.step()
    assert step
    assert step.finished == ["one"]
    assert (engine.running, engine.blocks.used) == (1, 2)
    assert engine.step() is None
    assert (engine.running, engine.blocks.used) == (0, 0)


def test_an_abort_after_the_last_token_frees_once() -> None:
    engine = Engine(SMALL)
    engine.submit(sequence("one", 32, 1))
    engine.step()
    engine.abort("one")
    assert engine.step() is None
    assert engine.blocks.used == 0


def test_an_abort_admits_the_next_sequence() -> None:
    engine = Engine(dataclasses.replace(SMALL, max_num_seqs=1))
    for name in "abc":
        engine.submit(sequence(name))
    engine.step()
    engine.abort("a")
    engine.abort("b")
    assert run(engine)[1] == ["c"]


def test_a_long_prompt_takes_several_steps_and_lengthens_them_for_others() -> None:
    alone, shared = Engine(SMALL), Engine(SMALL)
    for engine in (alone, shared):
        engine.submit(sequence("decoding", 16, 20))
        engine.step()
    shared.submit(sequence("long", 300, 1))
    first, second = alone.step(), shared.step()
    assert first
    assert second
    assert second.prefill_tokens == 63
    assert second.duration_ms > first.duration_ms + 10


def test_a_shared_prefix_is_prefilled_once() -> None:
    engine, text = Engine(SMALL), b"x" * 256
    engine.submit(sequence("first", 64, 2, text))
    run(engine)
    engine.submit(sequence("second", 64, 2, text))
    step = engine.step()
    assert step
    assert step.prefill_tokens == 16
    assert engine.prompt_tokens_cached == 48


def test_pieces_after_a_prefix_that_two_prefill_at_once_are_cached() -> None:
    engine = Engine(SMALL)
    for end in (b"a", b"b"):
        engine.submit(sequence(end.decode(), 64, 2, b"x" * 128 + end * 128))
    run(engine)
    for end in (b"a", b"b"):
        assert engine.blocks.cached_prefix(block_hashes(b"x" * 128 + end * 128, 16)) == 4


def test_a_preempted_prompt_is_counted_once() -> None:
    engine = Engine(dataclasses.replace(SMALL, num_blocks=8))
    for name in ("old", "new"):
        engine.submit(sequence(name, 32, 60))
    run(engine)
    assert engine.preemptions > 0
    assert engine.prompt_tokens_queried == 64


def test_running_out_of_blocks_preempts_the_newest() -> None:
    engine = Engine(dataclasses.replace(SMALL, num_blocks=8))
    engine.submit(sequence("old", 32, 60))
    engine.submit(sequence("new", 32, 60))
    tokens, ended, _ = run(engine)
    assert tokens == {"old": 60, "new": 60}
    assert ended == ["old", "new"]
    assert engine.preemptions > 0


def test_a_sequence_larger_than_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="KV blocks"):
        Engine(SMALL).submit(sequence("huge", 1000, 1))


def time_of(hardware: str, count: int) -> float:
    engine = Engine(PRESETS[hardware])
    for index in range(count):
        engine.submit(sequence(str(index), 500, 50))
    return run(engine)[2]


def test_slow_hardware_takes_some_three_times_as_long() -> None:
    assert 2 < time_of("slow", 1) / time_of("fast", 1) < 3


def test_a_batch_takes_longer_than_one_sequence_and_less_than_all_in_turn() -> None:
    assert time_of("fast", 1) < time_of("fast", 8) < 8 * time_of("fast", 1)


def test_each_token_takes_longer_in_a_larger_batch() -> None:
    def decode_ms(batch: int) -> float:
        engine = Engine(PRESETS["fast"])
        for index in range(batch):
            engine.submit(sequence(str(index), 100, 50))
        while step := engine.step():
            if step.decodes == batch:
                return step.duration_ms
        raise AssertionError("never decoded together")

    assert decode_ms(1) < decode_ms(8) < decode_ms(32)


def test_the_first_token_waits_for_earlier_prompts() -> None:
    def steps_until_first_token(ahead: int) -> float:
        engine, elapsed_ms = Engine(PRESETS["fast"]), 0.0
        for index in range(ahead):
            engine.submit(sequence(str(index), 2000, 5))
        engine.submit(sequence("mine", 100, 5))
        while step := engine.step():
            elapsed_ms += step.duration_ms
            if "mine" in step.produced:
                break
        return elapsed_ms

    waits = [steps_until_first_token(ahead) for ahead in (0, 2, 8)]
    assert waits[0] < waits[1] < waits[2]


def test_with_priorities_the_least_urgent_sequence_makes_room() -> None:
    hardware = dataclasses.replace(SMALL, num_blocks=8, scheduling_policy="priority")
    engine = Engine(hardware)
    for name, priority in (("late", 9), ("urgent", 0), ("soon", 1)):
        one = sequence(name, prompt=32, output=40)
        one.priority = priority
        engine.submit(one)
    _, ended, _ = run(engine)
    assert ended == ["urgent", "soon", "late"]
    assert engine.preemptions


def test_prompts_beside_decodes_take_longer_if_the_hardware_says_so() -> None:
    times = []
    for mixed_ms in (0.0, 3.0):
        engine = Engine(dataclasses.replace(SMALL, mixed_step_ms=mixed_ms, request_step_ms=mixed_ms / 3))
        engine.submit(sequence("a", output=3))
        steps = [engine.step()]
        engine.submit(sequence("b", output=3))
        steps += [engine.step() for _ in range(3)]
        times.append([step.duration_ms for step in steps if step])
    # Both are admitted once; only the second one beside a decode.
    assert [later - earlier for earlier, later in zip(*times, strict=True)] == pytest.approx([1.0, 4.0, 0.0, 0.0])


def test_tokens_that_several_sequences_read_are_cheaper_if_the_hardware_says_so() -> None:
    times = []
    for discount in (0.0, 0.5):
        engine = Engine(dataclasses.replace(SMALL, shared_discount=discount))
        for name in "abc":
            engine.submit(sequence(name, prompt=40, output=20, text=b"." * 160))
            engine.step()
        step = engine.step()
        assert step
        times.append(step.duration_ms)
        run(engine)
        assert engine.blocks.repeated == 0
    # Two of the three read 32 tokens that the first one reads as well; half of that is saved.
    saved_ms = 32 * SMALL.cost.decode_attention_ms(1, 1_000_000) / 1_000_000
    assert times[0] - times[1] == pytest.approx(saved_ms, rel=0.01)


@pytest.mark.parametrize(("reserve", "running"), [(False, 2), (True, 1)])
def test_an_engine_may_admit_a_prompt_only_if_all_of_it_fits(reserve: bool, running: int) -> None:
    engine = Engine(dataclasses.replace(SMALL, num_blocks=10, reserve_prompt=reserve))
    engine.submit(sequence("first", prompt=48, output=20))
    engine.submit(sequence("long", prompt=128, output=4))
    engine.step()
    assert engine.running == running
    assert run(engine)[1] == ["first", "long"]
