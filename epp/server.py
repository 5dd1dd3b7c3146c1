"""The picker's life: serve until a signal comes, then let open streams end."""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from epp.assembly import Assembly, assemble
from epp.config import Config
from epp.exceptions import ConfigError
from epp.extproc import front
from epp.extproc.tls import Certificates
from epp.workers.supervisor import Place

logger = logging.getLogger("headroom.epp")


async def serve(config: Config, place: Place | None = None) -> None:
    """Runs until SIGTERM or SIGINT. ConfigError or OSError when it can't start."""
    stopped = _signalled()
    async with AsyncExitStack() as closing:
        await _run(config, await assemble(config, place, closing), stopped, is_shared=place is not None)


async def _run(config: Config, picker: Assembly, stopped: asyncio.Event, *, is_shared: bool) -> None:
    """Serves until a signal comes, then lets open streams end; the background goes on until they have."""
    settings = _front_settings(config, is_shared)
    tasks = [asyncio.create_task(run()) for run in picker.background]
    served: front.Front | None = None
    try:
        tasks += _web_tasks(config, picker, is_shared)
        served = await front.start(settings, picker.new_exchange, picker.health)
        logger.info("ready: ext_proc on %d, metrics on %d", config.grpc_port, config.metrics_port)
        await _until(stopped, tasks)
    finally:
        logger.info("stopping: %d requests in flight", picker.pool.in_flight_total)
        if served is not None:
            await _leave(config, picker, served, stopped)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _leave(config: Config, picker: Assembly, served: front.Front, stopped: asyncio.Event) -> None:
    """Gives whoever asks for health, and the next leader, time to act before new streams are refused.

    A second signal cuts that time short.
    """
    picker.health.drain()
    picker.resign()
    stopped.clear()
    with suppress(TimeoutError):
        await asyncio.wait_for(stopped.wait(), config.shutdown_delay)
    await served.stop(config.drain_timeout)


def _front_settings(config: Config, is_shared: bool) -> front.FrontSettings:
    return front.FrontSettings(
        host=config.host,
        port=config.grpc_port,
        health_port=config.grpc_health_port,
        certificates=(
            Certificates(config.cert_path, config.tls_min_version, config.tls_cipher_suites)
            if config.secure_serving
            else None
        ),
        health_checking=config.health_checking,
        front=config.grpc_front,
        max_message_bytes=config.grpc_max_recv_msg_size,
        reuse_port=is_shared,
    )


def _web_tasks(config: Config, picker: Assembly, is_shared: bool) -> list[asyncio.Task[None]]:
    tls = _metrics_tls(config) if config.metrics_cert_dir else {}
    web = _WebServer(uvicorn.Config(picker.app, log_config=None, log_level="warning", lifespan="off", **tls))
    listener = _listen(config.host, config.metrics_port, is_shared)
    tasks = [asyncio.create_task(web.serve([listener]))]
    if picker.siblings:
        beside = uvicorn.Config(
            picker.own_app, uds=picker.siblings.own_socket, log_config=None, log_level="warning", lifespan="off"
        )
        tasks.append(asyncio.create_task(_WebServer(beside).serve()))
    return tasks


def _metrics_tls(config: Config) -> dict[str, Any]:
    folder = Path(config.metrics_cert_dir)
    files = {"ssl_keyfile": folder / "tls.key", "ssl_certfile": folder / "tls.crt"}
    for name, file in files.items():
        if not file.is_file():
            raise ConfigError(f"--metrics-cert-dir: there is no {file} for {name}")
    if not config.metrics_client_ca_file:
        return dict(files)
    return {**files, "ssl_ca_certs": config.metrics_client_ca_file, "ssl_cert_reqs": ssl.CERT_REQUIRED}


def _signalled() -> asyncio.Event:
    """Set by the signals that ask the process to end, from now on: one may come before anything is served."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _until(stopped: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Returns once stopped; raises what ended a task that should have gone on."""
    waiter = asyncio.create_task(stopped.wait())
    done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    for task in done - {waiter}:
        task.result()


def _listen(host: str, port: int, is_shared: bool) -> socket.socket:
    try:
        return socket.create_server((host, port), reuse_port=is_shared)
    except OSError as error:
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}") from error


class _WebServer(uvicorn.Server):
    """Leaves the signals to the whole process, whose end it is not alone to decide."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
