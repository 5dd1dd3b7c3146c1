"""Build metrics pages like those of model servers, and serve them from this process or from others."""

import asyncio
import multiprocessing
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing.connection import Connection

import uvloop

MODEL = 'engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"'
PAGE = "waiting 3\nrunning 5\nkv 0.25\n"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def vllm_page(waiting: float = 3, running: float = 5, kv_usage: float = 0.25, histograms: int = 17) -> bytes:
    """Return a page like vLLM's, of about its size: first gauges, then counters and histograms."""
    lines = []
    for name, value in (
        ("num_requests_running", running),
        ("num_requests_waiting", waiting),
        ("kv_cache_usage_perc", kv_usage),
    ):
        lines += [f"# HELP vllm:{name} As vLLM reports it.", f"# TYPE vllm:{name} gauge"]
        lines.append(f"vllm:{name}{{{MODEL}}} {float(value)}")
    for number in range(histograms):
        name = f"vllm:measured_{number}_seconds"
        lines += [f"# HELP {name} Histogram of some duration in seconds.", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{{MODEL},le="{bucket * 0.25}"}} {1000.0 * bucket}' for bucket in range(20)]
        lines += [f"{name}_count{{{MODEL}}} 20000.0", f"{name}_sum{{{MODEL}}} 81234.56789"]
    return ("\n".join(lines) + "\n").encode()


def http(body: bytes, head: str = "HTTP/1.1 200 OK") -> bytes:
    """Return an HTTP answer with a Content-Length."""
    lines = (head, "server: uvicorn", f"content-length: {len(body)}", "content-type: text/plain; version=0.0.4", "", "")
    return "\r\n".join(lines).encode() + body


def always(answer: bytes) -> Answer:
    """Return a handler that answers every request on a connection with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
            await writer.drain()

    return serve


def once(answer: bytes) -> Answer:
    """Return a handler that answers one request, then closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


page = always(http(PAGE.encode()))


@asynccontextmanager
async def serving(answer: Answer, host: str = "127.0.0.1", port: int = 0, **options: object) -> AsyncIterator[str]:
    """Run a server whose connections `answer` handles. Yield its ip:port."""
    open_connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_connections.add(task)
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # The client has gone, or the test is over.
        finally:
            open_connections.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, host, port, **options)  # type: ignore[arg-type]
    bound = server.sockets[0].getsockname()
    try:
        yield f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    finally:
        server.close()
        for task in open_connections:
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)


class _PageProtocol(asyncio.Protocol):
    """Answers as cheaply as possible, so that a test measures the client."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            self._transport.write(self._answer)  # type: ignore[attr-defined]


def _serve_pages(count: int, answer: bytes, ready: Connection) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        sockets = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(count)]
        for one in sockets:
            await loop.create_server(lambda: _PageProtocol(answer), sock=one)
        ready.send([f"127.0.0.1:{one.getsockname()[1]}" for one in sockets])
        await asyncio.Event().wait()

    os.setsid()
    uvloop.run(serve())


@contextmanager
def page_servers(count: int, body: bytes, processes: int = 2) -> Iterator[list[str]]:
    """Run `count` servers of the page `body` in `processes` processes. Yield their addresses."""
    context = multiprocessing.get_context("spawn")
    started, addresses = [], []
    try:
        for number in range(processes):
            ours, theirs = context.Pipe()
            share = len(range(number, count, processes))
            process = context.Process(target=_serve_pages, args=(share, http(body), theirs), daemon=True)
            process.start()
            started.append(process)
            addresses += ours.recv()
        yield addresses
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()
