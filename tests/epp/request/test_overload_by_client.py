"""A client's waits make its own picks cheaper, and the log tells the highest level of all clients."""

import gc
import logging

import pytest

from epp.request.overload import Level, Overload
from epp.request.overload_by_client import OverloadByClient
from tests.epp.clock import Clock

LIMIT_S = 0.05


class Connection:
    """Stands for a client."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def everyone(clock: Clock) -> OverloadByClient:
    return OverloadByClient(LIMIT_S, clock)


def wait(overload: Overload, clock: Clock) -> None:
    """Degrade a client's picks to random ones."""
    while overload.pick(0.06) < Level.RANDOM:
        clock.now_s += 0.01


def recover(overload: Overload, clock: Clock) -> None:
    while overload.pick(0.0):
        clock.now_s += 0.1


def test_a_client_that_waits_degrades_its_own_picks_alone(clock: Clock, everyone: OverloadByClient) -> None:
    late, prompt = Connection(), Connection()
    wait(everyone.of(late, "192.0.2.1:5"), clock)
    assert everyone.of(prompt, "192.0.2.2:6").pick(0.0) == Level.NORMAL
    assert everyone.of(late, "192.0.2.1:5").level == everyone.level == Level.RANDOM
    assert everyone.picks[Level.RANDOM] == 1


def test_prompt_neighbours_keep_no_late_client_at_its_level(clock: Clock, everyone: OverloadByClient) -> None:
    """One busy connection beside quiet ones would otherwise be late for ever."""
    late, prompt = Connection(), Connection()
    for _ in range(20):
        everyone.of(late, "192.0.2.1:5").pick(0.06)
        everyone.of(prompt, "192.0.2.2:6").pick(0.0)
        clock.now_s += 0.01
    assert everyone.of(late, "192.0.2.1:5").level == Level.RANDOM


def test_each_change_of_the_highest_level_is_one_line(
    clock: Clock, everyone: OverloadByClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clients = [Connection() for _ in range(3)]
    for number, client in enumerate(clients):
        wait(everyone.of(client, f"192.0.2.{number}:5"), clock)
    for number, client in enumerate(clients):
        recover(everyone.of(client, f"192.0.2.{number}:5"), clock)
    text = "overloaded: requests wait for more than 50 ms (connections: 1, one from 192.0.2.0:5); their picks are made "
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", text + "without predictions"),
        ("WARNING", text + "at random among the ready endpoints"),
        ("INFO", "less load: picks are made without predictions"),
        ("INFO", "less load: picks are made as configured again"),
    ]


def test_a_change_told_a_moment_ago_is_told_later_if_it_lasts(
    clock: Clock, everyone: OverloadByClient, caplog: pytest.LogCaptureFixture
) -> None:
    client, began_s = Connection(), clock.now_s
    wait(everyone.of(client, ""), clock)
    recover(everyone.of(client, ""), clock)
    wait(everyone.of(client, ""), clock)
    assert (clock.now_s < began_s + 9, len(caplog.messages)) == (True, 2)
    while clock.now_s < began_s + 10.2:
        everyone.of(client, "").pick(0.06)
        clock.now_s += 0.1
    assert everyone.of(client, "").level == Level.RANDOM
    assert len(caplog.messages) == 3


def test_the_level_of_a_client_that_has_left_is_over(
    clock: Clock, everyone: OverloadByClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client: Connection | None = Connection()
    wait(everyone.of(client, ""), clock)
    client = None
    gc.collect()
    clock.now_s += 0.2
    assert everyone.level == Level.NORMAL
    assert caplog.messages[-1] == "less load: picks are made as configured again"
