"""Tests of uvicorn's start, run and end inside the test's process."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from serving.life import Signals
from serving.listening import Address, listen
from serving.web import WebServer
from tests.live import PATIENCE_S

Work = Callable[[], Awaitable[object]]


async def nothing() -> None:
    pass


class Application:
    """An application that answers once `gate` is set, and records its events."""

    def __init__(self, starting: Work = nothing) -> None:
        self.events: list[str] = []
        self.gate = asyncio.Event()
        self._starting = starting

    def app(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            await self._starting()
            self.events.append("started")
            yield
            self.events.append("ended")

        async def answer(request: Request) -> Response:
            self.events.append("asked")
            await self.gate.wait()
            return PlainTextResponse("answer")

        return Starlette(routes=[Route("/", answer)], lifespan=lifespan)


@asynccontextmanager
async def serving_a_request(
    application: Application, grace_s: int
) -> AsyncIterator[tuple[WebServer, "asyncio.Task[str]"]]:
    """Run a server and send a request that waits for the gate; yield both."""
    listener = listen(Address("127.0.0.1", 0))
    web = WebServer(application.app(), listener, grace_s=grace_s)
    await web.start()
    running = asyncio.create_task(web.run())
    asking = asyncio.create_task(ask(listener.getsockname()[1]))
    async with asyncio.timeout(PATIENCE_S):
        while "asked" not in application.events:
            await asyncio.sleep(0.01)
    try:
        yield web, asking
    finally:
        running.cancel()
        asking.cancel()
        await asyncio.gather(running, asking, return_exceptions=True)


async def ask(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
        return await answer.text()


async def test_open_requests_are_answered_before_the_end() -> None:
    application = Application()
    async with serving_a_request(application, grace_s=20) as (web, asking):
        ending = asyncio.create_task(web.end(Signals()))
        await asyncio.sleep(0.2)
        assert not ending.done()
        application.gate.set()
        assert await asking == "answer"
        await ending
    assert application.events == ["started", "asked", "ended"]


async def test_the_end_takes_no_longer_than_the_grace_period(caplog: pytest.LogCaptureFixture) -> None:
    application = Application()
    async with serving_a_request(application, grace_s=1) as (web, _), asyncio.timeout(PATIENCE_S):
        await web.end(Signals())
    assert application.events == ["started", "asked", "ended"]
    assert "graceful shutdown exceeded" in caplog.text


async def test_another_sigint_ends_the_grace_period_and_another_sigterm_does_not() -> None:
    application, signals = Application(), Signals()
    async with serving_a_request(application, grace_s=600) as (web, _), asyncio.timeout(PATIENCE_S):
        signals.put_nowait(signal.SIGTERM)
        ending = asyncio.create_task(web.end(signals))
        await asyncio.sleep(0.3)
        assert not ending.done()
        signals.put_nowait(signal.SIGINT)
        await ending


async def test_an_application_that_fails_to_start_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise OSError("no journal")

    web = WebServer(Application(fail).app(), listen(Address("127.0.0.1", 0)), grace_s=1)
    with pytest.raises(SystemExit) as ended:
        await web.start()
    async with asyncio.timeout(PATIENCE_S):
        await web.end(Signals())
    assert ended.value.code == 3
    assert "no journal" in caplog.text


async def test_an_application_that_is_ended_while_starting_starts_first() -> None:
    gate = asyncio.Event()
    application = Application(gate.wait)
    web = WebServer(application.app(), listen(Address("127.0.0.1", 0)), grace_s=1)
    with suppress(TimeoutError):
        await asyncio.wait_for(web.start(), 0.05)
    gate.set()
    async with asyncio.timeout(PATIENCE_S):
        await web.end(Signals())
    assert application.events == ["started", "ended"]


async def test_a_server_that_was_never_started_has_nothing_to_end() -> None:
    await WebServer(Application().app(), listen(Address("127.0.0.1", 0)), grace_s=1).end(Signals())


async def test_a_socket_file_is_served_as_well(tmp_path: object) -> None:
    application = Application()
    application.gate.set()
    web = WebServer(application.app(), grace_s=1, uds=f"{tmp_path}/own.sock")
    await web.start()
    connector = aiohttp.UnixConnector(f"{tmp_path}/own.sock")
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://worker/") as answer:
        assert await answer.text() == "answer"
    await web.end(Signals())


def test_uvicorn_logs_only_warnings_and_errors() -> None:
    WebServer(Application().app(), uds="own.sock", grace_s=1)
    assert logging.getLogger("uvicorn.error").level == logging.WARNING


async def test_every_web_server_limits_the_request_head() -> None:
    listener = listen(Address("127.0.0.1", 0))
    web = WebServer(Application().app(), listener, grace_s=1)
    await web.start()
    running = asyncio.create_task(web.run())
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    writer.write(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
    assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).startswith(b"HTTP/1.1 431")
    writer.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await web.end(Signals())
