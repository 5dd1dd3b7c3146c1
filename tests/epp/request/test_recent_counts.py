"""Counts over time: each request counts once, in its step, whichever worker served it."""

from hypothesis import given
from hypothesis import strategies as st

from epp.request.outcome_journal import Row
from epp.request.recent_counts import STEP_S, Group, RecentCounts, Step, together

rows = st.builds(
    Row,
    decided_at=st.just(0.0),
    model=st.just("m"),
    profile=st.sampled_from(["slo", "default"]),
    endpoint=st.just("a"),
    source=st.sampled_from(["remote", "none"]),
    objective=st.sampled_from(["", "chat"]),
    status=st.sampled_from([200, 500]),
    slo_ttft_ms=st.sampled_from([None, 100.0]),
    ttft_ms=st.sampled_from([None, 50.0, 150.0]),
    output_tokens=st.sampled_from([None, 7]),
)
times = st.floats(1e9, 1e9 + 100, allow_nan=False)
Ended = list[tuple[float, Row, int]]


def counts_of(ended: Ended) -> RecentCounts:
    moments = iter([at for at, _, _ in ended])
    counts = RecentCounts(lambda: next(moments))
    for _, row, _ in ended:
        counts.ended(row)
    return counts


@given(st.lists(st.tuples(times, rows, st.integers(0, 2)), max_size=40))
def test_workers_together_count_as_one_process_would(ended: Ended) -> None:
    ended.sort(key=lambda one: one[0])
    alone = counts_of(ended).since(0)
    split = [counts_of([one for one in ended if one[2] == worker]).since(0) for worker in range(3)]
    assert together(split) == alone
    assert sum(group.requests for step in alone for group in step.groups.values()) == len(ended)
    assert all(group.met <= group.judged <= group.requests for step in alone for group in step.groups.values())


def test_steps_begin_at_multiples_of_their_length_and_old_ones_are_asked_for_by_time() -> None:
    moments = iter([1001.0, 1004.9, 1005.0])
    counts = RecentCounts(lambda: next(moments))
    for reason in ("busy", "busy", "full"):
        counts.refused(reason)
    assert counts.since(0) == [Step(1000, refused={"busy": 2}), Step(1005, refused={"full": 1})]
    assert [step.at for step in counts.since(1001)] == [1005]


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    moments = iter([2000.0, 1000.0])
    counts = RecentCounts(lambda: next(moments))
    for _ in range(2):
        counts.ended(Row(0.0, "m", "slo", "a"))
    assert counts.since(0) == [Step(2000, {("slo", ""): Group(requests=2)}, {"none": 2})]


def test_only_the_last_hour_is_kept() -> None:
    moments = iter(range(0, 2 * 3600, STEP_S))
    counts = RecentCounts(lambda: float(next(moments)))
    for _ in range(2 * 3600 // STEP_S):
        counts.refused("busy")
    assert len(counts.since(0)) == 3600 // STEP_S
