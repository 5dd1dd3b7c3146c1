"""Tests of leadership in a bucket, with clocks that the tests set."""

import json
from dataclasses import dataclass

import pytest

from model_store import StoreError, StoreUnavailableError
from model_store.s3 import S3Store
from tests.model_store.drafts import draft, in_force
from tests.model_store.places import BucketPlace
from tests.model_store.s3_server import S3Server, once

LEASE = ".leader"


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def first(bucket: BucketPlace, clock: Clock) -> S3Store:
    return contender(bucket, clock)


@pytest.fixture
def second(bucket: BucketPlace, clock: Clock) -> S3Store:
    return contender(bucket, clock)


def contender(bucket: BucketPlace, clock: Clock, lease_s: float = 15.0) -> S3Store:
    name, _, prefix = bucket.location.removeprefix("s3://").partition("/")
    return S3Store(name, prefix, lease_s, clock)


def test_a_leader_that_renews_is_never_replaced(first: S3Store, second: S3Store, clock: Clock) -> None:
    assert first.lead("first")
    for _ in range(10):
        assert not second.lead("second")
        clock.now_s += 14
        assert first.lead("first")
    assert second.leader() == "first"


def test_a_lease_that_is_not_renewed_runs_out(first: S3Store, second: S3Store, clock: Clock) -> None:
    assert first.lead("first")
    clock.now_s += 1000
    assert not second.lead("second"), "the second has only begun to watch"
    clock.now_s += 14.9
    assert not second.lead("second")
    clock.now_s += 0.1
    assert second.lead("second")
    assert first.leader() == "second"
    assert not first.lead("first")


def test_the_holders_own_lease_time_counts(bucket: BucketPlace, second: S3Store, clock: Clock) -> None:
    assert contender(bucket, clock, lease_s=60).lead("patient")
    assert not second.lead("second")
    clock.now_s += 59
    assert not second.lead("second")
    clock.now_s += 1
    assert second.lead("second")


def test_one_of_several_contenders_takes_a_lease_that_has_run_out(bucket: BucketPlace, clock: Clock) -> None:
    assert contender(bucket, clock).lead("dead")
    others = [contender(bucket, clock) for _ in range(3)]
    assert [other.lead("other") for other in others] == [False] * 3
    clock.now_s += 15
    assert [other.lead("other") for other in others] == [True, False, False]


def test_a_paused_leader_that_wakes_up_cannot_publish(first: S3Store, second: S3Store, clock: Clock) -> None:
    assert first.lead("first")
    published = first.publish([draft()])
    assert not second.lead("second")
    clock.now_s += 15
    assert second.lead("second")
    with pytest.raises(StoreError, match="first lost the lead to second"):
        first.publish([draft()])
    assert in_force(first) == published
    assert first.generations() == [1]
    assert second.publish([draft()]).generation > 1


def test_publishing_renews_the_lease(first: S3Store, second: S3Store, clock: Clock) -> None:
    assert first.lead("first")
    assert not second.lead("second")
    clock.now_s += 15
    first.publish([draft()])
    assert not second.lead("second")


def test_publishing_without_ever_having_led_stays_allowed(first: S3Store, second: S3Store) -> None:
    assert first.lead("first")
    assert not second.lead("second")
    assert second.publish([draft()]).generation == 1


def test_a_leader_that_resigns_hands_over_and_can_no_longer_publish(first: S3Store, second: S3Store) -> None:
    assert first.lead("first")
    assert not second.lead("second")
    first.resign()
    with pytest.raises(StoreError, match="first gave up the lead"):
        first.publish([draft()])
    assert second.lead("second")
    first.resign()
    assert second.lead("second")
    assert second.leader() == "second"


def test_resigning_leaves_another_holders_lease_alone(first: S3Store, second: S3Store, clock: Clock) -> None:
    assert first.lead("first")
    assert not second.lead("second")
    clock.now_s += 15
    assert second.lead("second")
    first.resign()
    assert first.leader() == "second"


@pytest.mark.parametrize("leads_already", [False, True])
def test_a_lease_write_whose_answer_was_lost_still_counts(
    first: S3Store, second: S3Store, s3: S3Server, leads_already: bool
) -> None:
    if leads_already:
        assert first.lead("first")
    s3.after = once("PUT", LEASE, error=(500, "InternalError"))
    # boto3 wrote again and conflicted with its own first write. A renewal then checks whose lease it is; a newcomer
    # checks at its next call.
    assert first.lead("first") is leads_already
    assert not second.lead("second")
    assert first.lead("first")
    assert first.publish([draft()])


def test_a_leader_publishes_although_a_renewals_answer_was_lost(first: S3Store, s3: S3Server) -> None:
    assert first.lead("first")
    s3.after = once("PUT", LEASE, error=(500, "InternalError"))
    assert first.publish([draft()]).generation == 1


def test_a_leader_that_got_no_answers_for_a_while_still_leads(first: S3Store, second: S3Store, s3: S3Server) -> None:
    assert first.lead("first")
    s3.after = lambda method, path: (500, "InternalError") if method == "PUT" else None
    with pytest.raises(StoreUnavailableError, match="InternalError"):
        first.lead("first")
    s3.remove_hooks()
    assert not second.lead("second")
    assert first.lead("first")
    assert first.publish([draft()])


def test_a_malformed_lease_runs_out(bucket: BucketPlace, first: S3Store, clock: Clock) -> None:
    bucket.write(LEASE, b"{")
    assert first.leader() == ""
    assert not first.lead("first")
    clock.now_s += 15
    assert first.lead("first")
    assert json.loads(bucket.read(LEASE))["owner"] == "first"
