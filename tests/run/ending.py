"""A pytest plugin that ends a run on SIGTERM or SIGINT, and leaves no process behind however the run ends.

The first signal raises KeyboardInterrupt, so that fixtures end the processes they have started. When pytest is done,
the plugin kills all processes that still run. It kills them at once if the fixtures take longer than `--grace`, or at a
second Ctrl-C. This process adopts orphans, so the plugin also finds processes whose parents are gone. Each worker of
pytest-xdist has its own instance of the plugin.
"""

import os
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType

import psutil
import pytest

from tests.run.processes import adopt_orphans, kill_descendants

# Time for a worker's fixtures to end, unless `--grace` sets another.
_GRACE_S = 6.0
# The process that waits for the workers gets a little more.
_MORE_FOR_WAITING_S = 4.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._pid = os.getpid()
        self._interrupts = 0
        self._is_ending = False

    def arm(self) -> None:
        """Install the signal handlers, again if needed: asyncio drops them when it removes its own."""
        for number in _SIGNALS:
            if signal.getsignal(number) != self._handle:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            _die_of(number)
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self._end_at_once()
        if self._is_ending:
            return
        self._is_ending = True
        timer = threading.Timer(self._grace_s, self._end_at_once)
        timer.daemon = True
        timer.start()
        _pass_on_to_workers()
        raise KeyboardInterrupt(signal.Signals(number).name)

    def _end_at_once(self) -> None:
        kill_descendants()
        os._exit(pytest.ExitCode.INTERRUPTED)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self.arm()
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        left = kill_descendants()
        if left and not self._is_ending:
            sys.stderr.write(f"Processes that the tests left behind: {', '.join(left)}\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "time that fixtures have to end after a signal"
    parser.addoption("--grace", type=float, default=_GRACE_S, metavar="SECONDS", help=text)


def pytest_configure(config: pytest.Config) -> None:
    adopt_orphans()
    is_waiting = config.getoption("numprocesses", None) is not None and not hasattr(config, "workerinput")
    ending = Ending(config.getoption("grace") + is_waiting * _MORE_FOR_WAITING_S)
    ending.arm()
    config.pluginmanager.register(ending, "ending")


def _pass_on_to_workers() -> None:
    """Send SIGTERM to this run's workers, because a signal to this process does not reach them."""
    for child in psutil.Process().children():
        if is_worker(child):
            child.send_signal(signal.SIGTERM)


def is_worker(process: psutil.Process) -> bool:
    """Return whether a process is a worker of pytest-xdist; execnet starts those."""
    try:
        return any("execnet" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _die_of(number: int) -> None:
    """End this process by the signal's default action. A forked child needs this, as it inherits the handlers."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
