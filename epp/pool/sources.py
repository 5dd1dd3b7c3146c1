"""Sources of endpoints: a list on the command line, or a watched file."""

import asyncio
import logging
import socket
import time
from pathlib import Path

from epp.exceptions import ConfigError
from epp.pool.addresses import is_ip, join_address
from epp.pool.endpoint_list import ListedEndpoint, parse_file, parse_list
from epp.pool.objectives import Objectives
from epp.pool.pool import Pool
from epp.scheduling.snapshot import Endpoint
from serving.watched_file import Stamp, file_stamp

logger = logging.getLogger("headroom.epp.endpoints")

_MAX_FILE_BYTES = 16 << 20
# Seconds between lookups of host names, whose addresses may change while the file doesn't.
_RESOLVE_EVERY_S = 10.0


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Parse `[name=]host:port,...` and resolve host names once; ConfigError names the wrong part."""
    endpoints = []
    for listed in parse_list(text):
        endpoint = _resolve(listed)
        if endpoint is None:
            raise ConfigError(f"endpoint {listed.address}: the host name can't be resolved")
        endpoints.append(endpoint)
    return tuple(endpoints)


def read_endpoints(path: Path) -> tuple[Endpoint, ...]:
    """Read a YAML or JSON file; ConfigError names the line and the wrong field.

    Host names are resolved. An endpoint whose host name can't be resolved is left out.
    """
    return _resolve_all(_read(path))


class EndpointsFlag:
    """The endpoints of --endpoints, which never change. ConfigError when the text is wrong."""

    is_ready = True

    def __init__(self, text: str, pool: Pool) -> None:
        self.objectives = Objectives()
        pool.replace_endpoints(parse_endpoints(text))

    async def run(self) -> None:
        """Wait until cancelled; there is nothing to do."""
        await asyncio.Event().wait()


class EndpointsFile:
    """The endpoints of --endpoints-file, which may change. ConfigError when the file is wrong at the start."""

    is_ready = True

    def __init__(
        self, path: Path, pool: Pool, interval_s: float = 1.0, resolve_every_s: float = _RESOLVE_EVERY_S
    ) -> None:
        self.objectives = Objectives()
        self._path = path
        self._pool = pool
        self._interval_s = interval_s
        self._resolve_every_s = resolve_every_s
        pool.replace_endpoints(read_endpoints(path))

    async def run(self) -> None:
        """Keep the pool equal to the file until cancelled. A wrong file changes nothing."""
        seen: Stamp | None = None
        listed: tuple[ListedEndpoint, ...] = ()
        resolve_at = 0.0
        while True:
            stamp = file_stamp(self._path)
            changed = stamp is not None and stamp != seen
            if changed:
                try:
                    listed = await asyncio.to_thread(_read, self._path)
                    level = logging.INFO if listed else logging.WARNING
                    logger.log(level, "%d endpoints in %s", len(listed), self._path)
                except ConfigError as error:
                    changed = False
                    logger.error("endpoints unchanged: %s", error)
            seen = stamp
            if changed or (time.monotonic() >= resolve_at and not all(is_ip(one.host) for one in listed)):
                self._pool.replace_endpoints(await asyncio.to_thread(_resolve_all, listed))
                resolve_at = time.monotonic() + self._resolve_every_s
            await asyncio.sleep(self._interval_s)


def _read(path: Path) -> tuple[ListedEndpoint, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    if len(text) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_FILE_BYTES} bytes")
    try:
        return parse_file(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _resolve_all(listed: tuple[ListedEndpoint, ...]) -> tuple[Endpoint, ...]:
    """Return the endpoints whose host can be resolved, with IP addresses."""
    endpoints = []
    for one in listed:
        endpoint = _resolve(one)
        if endpoint is None:
            logger.warning("endpoint %s is left out: its host name can't be resolved", one.address)
        else:
            endpoints.append(endpoint)
    return tuple(endpoints)


def _resolve(listed: ListedEndpoint) -> Endpoint | None:
    """Return the endpoint with an IP address, which Envoy needs; None when the host name can't be resolved."""
    ip = _ip(listed.host)
    if ip is None:
        return None
    metrics = ""
    if listed.metrics is not None:
        host, port = listed.metrics
        # A different metrics host may stay a name, since this picker itself connects to it.
        metrics = join_address(ip if host == listed.host else host, port)
    return Endpoint(listed.name, join_address(ip, listed.port), listed.labels, metrics)


def _ip(host: str) -> str | None:
    if is_ip(host):
        return host
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        return None
