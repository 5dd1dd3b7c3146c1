"""Scenarios at another speed: one second of the original takes 1 / `speed_factor` seconds.

A simulated server that can't stream as fast as the hardware that it imitates runs a slowed-down scenario.
"""

from dataclasses import replace

from simulator.arrival import Arrival, Change, Scenario


def scale_time(scenario: Scenario, speed_factor: float) -> Scenario:
    """Scale gaps, objectives and steps alike, so that the same requests meet their objectives as at full speed."""
    if speed_factor == 1:
        return scenario
    return replace(
        scenario,
        arrivals=tuple(_scale_arrival(arrival, speed_factor) for arrival in scenario.arrivals),
        changes=(
            *(Change(0.0, endpoint, 1 / speed_factor) for endpoint in range(len(scenario.endpoints))),
            *(Change(c.at_s / speed_factor, c.endpoint, c.slowdown / speed_factor) for c in scenario.changes),
        ),
    )


def _scale_arrival(arrival: Arrival, speed_factor: float) -> Arrival:
    return replace(
        arrival,
        arrival_s=arrival.arrival_s / speed_factor,
        slo_ttft_ms=round(arrival.slo_ttft_ms / speed_factor, 3),
        slo_tpot_ms=round(arrival.slo_tpot_ms / speed_factor, 3),
    )
