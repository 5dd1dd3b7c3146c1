"""A pytest plugin for `--quick`, which leaves out the tests marked slow and the tests that start a process.

There is no list of tests that start a process. The plugin skips a test when the test tries to start one.
"""

import multiprocessing.process
import os
import sys
from collections.abc import Generator, Iterable
from typing import Any, NoReturn

import pytest

STARTS_A_PROCESS = "starts a process"
_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
_SLOW = "slow_tests_left_out"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out slow tests and those that start processes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        config.pluginmanager.register(Quick(config), "quick")


def _refuse(process: multiprocessing.process.BaseProcess) -> NoReturn:
    pytest.skip(STARTS_A_PROCESS)


class Quick:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._slow = 0
        self._pid = os.getpid()
        self._in_test = False
        self._is_refused = False
        # pytest raises the exception of a shared fixture again for each of its tests.
        self._outcomes: list[BaseException] = []
        sys.addaudithook(self._audit)
        # Python raises no audit event for some processes that multiprocessing starts.
        multiprocessing.process.BaseProcess.start = _refuse  # type: ignore[assignment,method-assign]

    def _audit(self, event: str, arguments: Iterable[object]) -> None:
        if event in _EVENTS and self._in_test:
            self._is_refused = True
            pytest.skip(STARTS_A_PROCESS)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self._in_test, self._is_refused = True, False
        try:
            return (yield)
        finally:
            self._in_test = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Report a test as skipped even if another thread or a shared fixture tried to start the process."""
        report = yield
        if call.excinfo and self._is_refused:
            self._outcomes.append(call.excinfo.value)
        if call.excinfo and any(call.excinfo.value is outcome for outcome in self._outcomes):
            # Give all skips one location, so that the summary shows one line for them.
            report.outcome, report.longrepr = "skipped", (__file__, 0, f"Skipped: {STARTS_A_PROCESS}")
            if report.when == "teardown":
                report.outcome, report.longrepr = "passed", None
        return report

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        self._slow = len(slow)

    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput[_SLOW] = self._slow

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._slow = getattr(node, "workeroutput", {}).get(_SLOW, self._slow)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        skipped = terminalreporter.stats.get("skipped", [])
        starting = len({report.nodeid for report in skipped if STARTS_A_PROCESS in str(report.longrepr)})
        terminalreporter.write_line(
            f"--quick has left out {self._slow} slow tests, and {starting} that start processes."
        )
