"""Alerts fire in a real Prometheus when their conditions are made to happen in the loop, and end when these end.

All windows and waits are a sixtieth of the chart's. test_rules.py has the chart's own times, and the alerts whose
conditions can't be made to happen within seconds.
"""

import signal

import pytest

from lab.loop.stack import write_endpoints
from tests.monitoring.conftest import Loop
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.traffic import traffic, until_true

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("monitoring")]


async def fires(watcher: Prometheus, *names: str) -> None:
    """Wait until each of the alerts has fired. They need not fire together: those over a window end by themselves."""
    missing = set(names)

    def all_fired() -> bool:
        missing.difference_update(watcher.firing())
        return not missing

    try:
        await until_true(all_fired)
    except AssertionError:
        raise AssertionError(f"don't fire: {missing}; do: {watcher.firing()}") from None


async def all_end(watcher: Prometheus) -> None:
    try:
        await until_true(lambda: not watcher.firing())
    except AssertionError:
        raise AssertionError(f"still fire: {watcher.firing()}") from None


async def test_no_model_server_and_a_wrong_configuration(loop: Loop, watcher: Prometheus) -> None:
    config = loop.config
    good = config.picker_file.read_text()
    async with traffic(config):
        await all_end(watcher)
        write_endpoints(config, ())
        config.picker_file.write_text("plugins: [{type: nothing-of-the-kind}]\n")
        await fires(watcher, "HeadroomNoEndpoints", "HeadroomRefusals", "HeadroomConfigurationRefused")
        write_endpoints(config, (0, 1))
        config.picker_file.write_text(good)
        await all_end(watcher)


async def test_a_server_that_hangs_prediction_servers_that_fail_and_a_damaged_store(
    loop: Loop, watcher: Prometheus
) -> None:
    predictors = [f"predictor-{n}" for n in range(1, 4)]
    async with traffic(loop.config):
        await all_end(watcher)
        loop.supervisor.kill(loop.config.server_names[1], signal.SIGSTOP)
        await loop.supervisor.end(predictors)
        (loop.config.store / "current.json").write_text("{")
        await fires(
            watcher,
            "HeadroomStaleEndpoints",
            "HeadroomFallback",
            "HeadroomPredictionServerPaused",
            "HeadroomStoreDamaged",
        )
        loop.supervisor.kill(loop.config.server_names[1], signal.SIGCONT)
        await loop.supervisor.restart(predictors)
        await all_end(watcher)


async def test_a_trainer_that_is_gone(loop: Loop, watcher: Prometheus) -> None:
    async with traffic(loop.config):
        await all_end(watcher)
        await loop.supervisor.end(["trainer"])
        await fires(watcher, "HeadroomRowsLost", "HeadroomModelsOld")
        await loop.supervisor.restart(["trainer"])
        await all_end(watcher)
