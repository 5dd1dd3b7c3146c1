"""Starts, runs and stops the picker's servers and background tasks."""

import asyncio
import gc
import logging
import ssl
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

from epp.assembly import Assembly, assemble
from epp.config import Config
from epp.exceptions import ConfigError
from epp.extproc import front
from epp.extproc.tls import Certificates
from serving.life import Signals, live
from serving.listening import Address, listen
from serving.web import WebServer
from serving.workers import Place

logger = logging.getLogger("headroom.epp")

# Time that readers of metrics have to finish at the end, after the streams.
_GRACE_S: Final = 1
# New objects after which the youngest are looked at, how often that is done until the next older ones are looked at as
# well, and how often that, until all are. The first two take one and three milliseconds.
_COLLECT_AFTER: Final = (5_000, 2, 50)


def serve(config: Config, place: Place | None = None) -> None:
    """Run until SIGTERM or SIGINT. ConfigError, StartError or OSError when the picker can't start."""
    live(PickerServer(config, place))


class PickerServer:
    """The picker's ext_proc and health servers, its HTTP server for metrics, and its background tasks."""

    def __init__(self, config: Config, place: Place | None) -> None:
        self._config = config
        self._place = place
        self._picker: Assembly | None = None
        self._front: front.Front | None = None
        self._web: list[WebServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        settings = _front_settings(self._config, is_shared=self._place is not None)
        self._picker = picker = await assemble(self._config, self._place, self._closing)
        self._tasks = [asyncio.create_task(run()) for run in picker.background]
        self._web = _web_servers(self._config, picker, is_shared=self._place is not None)
        for web in self._web:
            await web.start()
            self._tasks.append(asyncio.create_task(web.run()))
        self._front = await front.start(settings, picker.new_exchange, picker.health, picker.count_flood)
        _relax_collector()
        logger.info("ready: ext_proc on %d, metrics on %d", self._config.grpc_port, self._config.metrics_port)

    async def run(self) -> None:
        """Wait until a task ends, which none should, and raise its error if it failed."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def end(self, signals: Signals) -> None:
        """Let open streams end, then stop the metrics port and the background tasks."""
        if self._picker:
            logger.info("stopping: %d requests in flight", self._picker.pool.own_requests.in_flight)
            if self._front:
                await self._leave(self._picker, self._front, signals)
        await asyncio.gather(*(web.end(signals) for web in self._web))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._closing.aclose()

    async def _leave(self, picker: Assembly, served: front.Front, signals: Signals) -> None:
        """Report not serving and give up the lead, wait for --shutdown-delay, then refuse new streams.

        The wait lets gateways and the next leader act. A second signal cuts the wait short.
        """
        picker.health.drain()
        picker.resign()
        with suppress(TimeoutError):
            await asyncio.wait_for(signals.get(), self._config.shutdown_delay)
        await served.stop(self._config.drain_timeout)


def _relax_collector() -> None:
    """Keep collections of cyclic garbage short: they stop the event loop, for longer the more objects they look at."""
    gc.collect()
    # Objects made so far live as long as the process.
    gc.freeze()
    # Thousands of new streams would otherwise be looked at again and again, for up to 100 ms each time.
    gc.set_threshold(*_COLLECT_AFTER)


def _front_settings(config: Config, *, is_shared: bool) -> front.FrontSettings:
    if config.client_ca_file and not config.secure_serving:
        raise ConfigError("--client-ca-file: clients can present certificates only over TLS; set --secure-serving")
    return front.FrontSettings(
        host=config.host,
        port=config.grpc_port,
        health_port=config.grpc_health_port,
        certificates=(
            Certificates(config.cert_path, config.tls_min_version, config.tls_cipher_suites, config.client_ca_file)
            if config.secure_serving
            else None
        ),
        health_checking=config.health_checking,
        front=config.grpc_front,
        max_message_bytes=config.grpc_max_recv_msg_size,
        max_buffered_bytes=config.max_buffered_bytes,
        max_connections=config.max_connections,
        reuse_port=is_shared,
    )


def _web_servers(config: Config, picker: Assembly, *, is_shared: bool) -> list[WebServer]:
    """Return the server of the metrics port and, among several workers, the one for sibling workers."""
    tls = _metrics_tls(config) if config.metrics_cert_dir else {}
    listener = listen(Address(config.host, config.metrics_port, is_shared))
    # Access to /debug may depend on the caller's address, which only a proxy on this host may name.
    proxies = "127.0.0.1"
    servers = [WebServer(picker.app, listener, grace_s=_GRACE_S, lifespan="off", forwarded_allow_ips=proxies, **tls)]
    if picker.siblings:
        own_socket = picker.siblings.own_socket
        servers.append(WebServer(picker.own_app, grace_s=_GRACE_S, lifespan="off", uds=own_socket))
    return servers


def _metrics_tls(config: Config) -> dict[str, Any]:
    folder = Path(config.metrics_cert_dir)
    files = {"ssl_keyfile": folder / "tls.key", "ssl_certfile": folder / "tls.crt"}
    for name, file in files.items():
        if not file.is_file():
            raise ConfigError(f"--metrics-cert-dir: {file} ({name}) does not exist")
    if not config.metrics_client_ca_file:
        return dict(files)
    return {**files, "ssl_ca_certs": config.metrics_client_ca_file, "ssl_cert_reqs": ssl.CERT_REQUIRED}
