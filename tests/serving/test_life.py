"""Tests of a server's life inside the test's process, which sends itself signals."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from serving.exceptions import StartError
from serving.life import Signals, live
from serving.parent import PARENT
from tests.live import PATIENCE_S


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the signal handlers that the event loop replaces."""
    monkeypatch.delenv(PARENT, raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


class Recorded:
    """A server that records its steps, and calls `starting` and `running` during them."""

    def __init__(
        self, starting: Callable[[], object] = lambda: None, running: Callable[[], object] = lambda: None
    ) -> None:
        self.events: list[str] = []
        self._starting = starting
        self._running = running

    async def start(self) -> None:
        self.events.append("start")
        self._starting()
        await asyncio.sleep(0.01)
        self.events.append("started")

    async def run(self) -> None:
        self.events.append("run")
        self._running()
        await asyncio.sleep(60)

    async def end(self, signals: Signals) -> None:
        self.events.append("end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_runs_until_a_signal_and_ends(number: signal.Signals) -> None:
    server = Recorded(running=lambda: send(number))
    live(server)
    assert server.events == ["start", "started", "run", "end"]


def test_a_signal_during_the_start_ends_the_server() -> None:
    server = Recorded(starting=lambda: send(signal.SIGTERM))
    live(server)
    assert server.events == ["start", "end"]


@pytest.mark.parametrize("error", [StartError("the port is taken"), TimeoutError("a timeout of its own")])
@pytest.mark.parametrize("phase", ["starting", "running"])
def test_an_error_is_raised_once_the_server_has_ended(phase: str, error: Exception) -> None:
    def fail() -> None:
        raise error

    server = Recorded(starting=fail) if phase == "starting" else Recorded(running=fail)
    with pytest.raises(type(error), match=str(error)):
        live(server)
    assert server.events[-1] == "end"


def test_a_server_that_stops_by_itself_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    class Brief(Recorded):
        async def run(self) -> None:
            self.events.append("run")

    server = Brief()
    live(server)
    assert server.events == ["start", "started", "run", "end"]
    assert not caplog.records


def test_end_receives_further_signals() -> None:
    class Drained(Recorded):
        async def end(self, signals: Signals) -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                send(number)
                assert await asyncio.wait_for(signals.get(), PATIENCE_S) == number
            self.events.append("drained")

    server = Drained(running=lambda: send(signal.SIGINT))
    live(server)
    assert server.events == ["start", "started", "run", "drained"]


def test_a_server_ends_with_its_parent_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    child = os.fork()
    if not child:
        signal.pause()
    monkeypatch.setenv(PARENT, str(child))
    # The killed child is a zombie, which counts as ended.
    server = Recorded(running=lambda: os.kill(child, signal.SIGKILL))
    live(server)
    os.waitpid(child, 0)
    assert server.events == ["start", "started", "run", "end"]
    assert "has ended" in caplog.text
    with pytest.raises(StartError, match=f"process {child}, which HEADROOM_PARENT names, has ended"):
        live(Recorded())


def test_a_parent_that_is_not_a_process_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT, "init")
    with pytest.raises(StartError, match="HEADROOM_PARENT='init': expected the id of a process"):
        live(Recorded())


class Counted:
    """A server that counts its process's threads before and after it has used some."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    async def start(self) -> None:
        self.counts.append(threading.active_count())

    async def run(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(100)))
        self.counts.append(threading.active_count())

    async def end(self, signals: Signals) -> None: ...


def test_a_server_starts_no_threads_while_it_runs() -> None:
    server = Counted()
    live(server)
    assert server.counts[0] == server.counts[1] > 1
