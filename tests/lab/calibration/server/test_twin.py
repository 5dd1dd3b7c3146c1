"""Requests to an engine in virtual time: delays, clients that leave, and priorities."""

import dataclasses
import random

import pytest

from lab.calibration.server.asks import Ask, random_prompt
from lab.calibration.server.twin import Twin
from simulator.hardware import PRESETS

ONE_AT_A_TIME = dataclasses.replace(PRESETS["fast"], max_num_seqs=1)


def prompt(tokens: int = 64) -> tuple[int, ...]:
    return random_prompt(random.Random(tokens), tokens)


def test_a_request_takes_the_time_of_its_steps_after_that_of_the_host() -> None:
    hardware = dataclasses.replace(PRESETS["fast"], request_ms=5.0, prompt_token_ms=0.1, request_step_ms=2.0)
    [timeline] = Twin(hardware).replay([Ask(prompt(), 2, at_s=1.0)])
    first_ms = hardware.cost.dense_ms(64) + hardware.cost.prefill_attention_ms(64, 0)
    assert timeline.ttft_ms == pytest.approx(5.0 + 6.4 + 2.0 + first_ms)
    assert timeline.tpot_ms == pytest.approx(hardware.cost.dense_ms(1) + hardware.cost.decode_attention_ms(1, 64))


def test_a_client_that_leaves_makes_room() -> None:
    stays = [Ask(prompt(), 100), Ask(prompt(65), 1, at_s=0.01)]
    leaves = [dataclasses.replace(stays[0], leave_s=0.2), stays[1]]
    [_, late], [left, early] = (Twin(ONE_AT_A_TIME).replay(asks) for asks in (stays, leaves))
    assert 1 < left.tokens[-1] < 20
    assert early.ttft_ms < 300 < late.ttft_ms


def test_an_urgent_request_goes_first_if_the_engine_has_priorities() -> None:
    asks = [Ask(prompt(), 20), Ask(prompt(65), 1, at_s=0.01, priority=5), Ask(prompt(66), 1, at_s=0.02, priority=1)]
    hardware = dataclasses.replace(ONE_AT_A_TIME, scheduling_policy="priority")
    orders = []
    for one in (ONE_AT_A_TIME, hardware):
        timelines = Twin(one).replay(asks)
        orders.append(timelines[1].times[0] < timelines[2].times[0])
    assert orders == [True, False]


def test_a_prompt_that_was_computed_is_cached_in_the_next_run() -> None:
    twin = Twin(PRESETS["fast"])
    first, again = (twin.replay([Ask(prompt(1_000), 1)])[0].ttft_ms for _ in range(2))
    assert again < first / 5
