"""Endpoints that fail their requests are left out, and come back."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.pool.failures import Failures
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint

REQUEST = Request("1", "m", input_tokens=500)


class Rig:
    """A pool of four whose clock the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.pool = Pool(PrefixIndex(100), 1e9, clock=lambda: self.now_s)
        self.pool.replace_endpoints([Endpoint(f"server-{n}", f"10.0.0.{n}:80") for n in range(4)])

    def answer(self, slot: int, *, failed: bool, times: int = 1) -> None:
        for _ in range(times):
            self.pool.failures.answered(slot, failed=failed)

    def stream(self, slot: int, *, is_complete: bool, times: int = 1) -> None:
        """Let the endpoint answer streams well, as far as their headers say."""
        for _ in range(times):
            self.pool.failures.answered(slot, failed=False)
            self.pool.failures.stream_ended(slot, is_complete=is_complete)

    @property
    def candidates(self) -> list[int]:
        return [int(slot) for slot in self.pool.snapshot(REQUEST).slots]


def test_three_failures_in_a_row_leave_an_endpoint_out_until_its_time_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.answer(1, failed=True, times=2)
    rig.answer(1, failed=False)
    rig.answer(1, failed=True, times=2)
    assert rig.candidates == [0, 1, 2, 3]
    rig.answer(1, failed=True)
    assert rig.candidates == [0, 2, 3]
    assert "server-1 fails its requests; it gets none for 2 s" in caplog.text
    rig.now_s += 2.1
    assert rig.candidates == [0, 1, 2, 3]


def test_each_further_failure_doubles_the_time_and_one_answer_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig()
    rig.answer(1, failed=True, times=3)
    for pause_s in (4, 8, 16, 32, 60, 60):
        rig.now_s += 61
        rig.answer(1, failed=True)
        assert rig.pool.failures.pauses_s() == {1: pause_s}
    rig.answer(1, failed=False)
    assert rig.candidates == [0, 1, 2, 3]
    assert "server-1 answers its requests again" in caplog.text
    rig.answer(1, failed=True, times=3)
    assert rig.pool.failures.pauses_s() == {1: 2}


def test_requests_that_fail_everywhere_leave_nobody_out() -> None:
    rig = Rig()
    for _ in range(5):
        for slot in range(4):
            rig.answer(slot, failed=True)
    assert rig.candidates == [0, 1, 2, 3]


def test_two_broken_endpoints_of_four_are_left_out_and_three_are_not() -> None:
    rig = Rig()
    for slot in range(4):
        rig.answer(slot, failed=False, times=5)
    rig.answer(1, failed=True, times=3)
    rig.answer(2, failed=True, times=3)
    assert rig.candidates == [0, 3]
    rig.answer(3, failed=True, times=3)
    assert rig.candidates == [0, 1, 2, 3]


def test_streams_that_end_within_their_answers_leave_an_endpoint_out_until_one_is_complete(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.stream(1, is_complete=False, times=2)
    rig.stream(1, is_complete=True)
    rig.stream(1, is_complete=False, times=2)
    assert rig.candidates == [0, 1, 2, 3]
    rig.stream(1, is_complete=False)
    assert rig.candidates == [0, 2, 3]
    assert "server-1 ends its streams within the answer; it gets none for 2 s" in caplog.text
    rig.now_s += 2.1
    rig.answer(1, failed=False)
    rig.stream(1, is_complete=False)
    assert rig.pool.failures.pauses_s() == {1: 4}
    rig.stream(1, is_complete=True)
    assert rig.candidates == [0, 1, 2, 3]


def test_an_endpoint_that_fails_in_both_ways_comes_back_when_both_are_over() -> None:
    rig = Rig()
    rig.stream(1, is_complete=False, times=3)
    rig.answer(1, failed=True, times=3)
    rig.pool.failures.stream_ended(1, is_complete=True)
    assert rig.candidates == [0, 2, 3]
    rig.answer(1, failed=False)
    assert rig.candidates == [0, 1, 2, 3]


def test_streams_that_end_early_everywhere_leave_nobody_out_however_many_are_not_observed() -> None:
    rig = Rig()
    for _ in range(5):
        for slot in range(4):
            rig.stream(slot, is_complete=False)
            rig.answer(slot, failed=False, times=10)
    assert rig.candidates == [0, 1, 2, 3]


def test_an_endpoint_that_takes_the_place_of_a_broken_one_starts_afresh() -> None:
    rig = Rig()
    rig.answer(1, failed=True, times=3)
    rig.pool.failures.forget(1)
    assert rig.candidates == [0, 1, 2, 3]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans(), st.floats(0, 5)), max_size=200))
def test_at_most_half_are_left_out_whatever_happens(answers: list[tuple[int, bool, bool, float]]) -> None:
    now_s = [0.0]
    failures, slots = Failures(lambda: now_s[0]), np.arange(6)
    for slot, failed, is_stream, wait_s in answers:
        now_s[0] += wait_s
        if is_stream:
            failures.stream_ended(slot, is_complete=not failed)
        else:
            failures.answered(slot, failed=failed)
        out = failures.left_out(slots)
        assert out is None or 0 < out.sum() <= 3
