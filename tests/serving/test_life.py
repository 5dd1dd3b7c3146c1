"""A server's life within this process, ended by signals to it."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from serving.exceptions import StartError
from serving.life import Signals, live
from serving.parent import PARENT


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The event loop takes the signals; afterwards they are whoever's they were."""
    monkeypatch.delenv(PARENT, raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


class Recorded:
    """Writes down what happens to it; `starting` and `running` are what it does meanwhile."""

    def __init__(
        self, starting: Callable[[], object] = lambda: None, running: Callable[[], object] = lambda: None
    ) -> None:
        self.told: list[str] = []
        self._starting = starting
        self._running = running

    async def start(self) -> None:
        self.told.append("start")
        self._starting()
        await asyncio.sleep(0.01)
        self.told.append("started")

    async def run(self) -> None:
        self.told.append("run")
        self._running()
        await asyncio.sleep(60)

    async def end(self, signals: Signals) -> None:
        self.told.append("end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_runs_until_a_signal_and_ends(number: signal.Signals) -> None:
    server = Recorded(running=lambda: send(number))
    live(server)
    assert server.told == ["start", "started", "run", "end"]


def test_a_signal_cuts_the_start_short() -> None:
    server = Recorded(starting=lambda: send(signal.SIGTERM))
    live(server)
    assert server.told == ["start", "end"]


@pytest.mark.parametrize("error", [StartError("the port is taken"), TimeoutError("a timeout of its own")])
@pytest.mark.parametrize("phase", ["starting", "running"])
def test_what_ends_it_otherwise_is_raised_once_it_has_ended(phase: str, error: Exception) -> None:
    def fail() -> None:
        raise error

    server = Recorded(starting=fail) if phase == "starting" else Recorded(running=fail)
    with pytest.raises(type(error), match=str(error)):
        live(server)
    assert server.told[-1] == "end"


def test_a_server_that_ends_by_itself_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    class Brief(Recorded):
        async def run(self) -> None:
            self.told.append("run")

    server = Brief()
    live(server)
    assert server.told == ["start", "started", "run", "end"]
    assert not caplog.records


def test_the_end_hears_of_further_signals() -> None:
    class Drained(Recorded):
        async def end(self, signals: Signals) -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                send(number)
                assert await asyncio.wait_for(signals.get(), 10) == number
            self.told.append("drained")

    server = Drained(running=lambda: send(signal.SIGINT))
    live(server)
    assert server.told == ["start", "started", "run", "drained"]


def test_it_ends_with_the_process_that_started_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    child = os.fork()
    if not child:
        signal.pause()
    monkeypatch.setenv(PARENT, str(child))
    # A zombie has ended too.
    server = Recorded(running=lambda: os.kill(child, signal.SIGKILL))
    live(server)
    os.waitpid(child, 0)
    assert server.told == ["start", "started", "run", "end"]
    assert "has ended" in caplog.text
    with pytest.raises(StartError, match=f"process {child}, which HEADROOM_PARENT names, has ended"):
        live(Recorded())


def test_a_parent_that_is_no_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT, "init")
    with pytest.raises(StartError, match="HEADROOM_PARENT='init': expected the id of a process"):
        live(Recorded())
