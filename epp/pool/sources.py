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


class _HostNames:
    """Looks up host names. While DNS doesn't answer, a name keeps its last address."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._is_away = False

    def endpoints(self, listed: tuple[ListedEndpoint, ...]) -> tuple[Endpoint, ...]:
        """Return the endpoints whose host has an IP address."""
        before, self._known, is_away, found = self._known, {}, False, []
        for one in listed:
            try:
                ip = self._known.get(one.host) or _ip(one.host)
            except _NoAnswerError:
                ip, is_away = before.get(one.host), True
            if ip is None:
                logger.warning("endpoint %s is left out: its host name can't be resolved", one.address)
            else:
                self._known[one.host] = ip
                found.append(_placed(one, ip))
        if is_away != self._is_away:
            self._is_away = is_away
            if is_away:
                logger.warning("DNS doesn't answer; host names that were known keep their addresses")
            else:
                logger.info("DNS answers again")
        return tuple(found)


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Parse `[name=]host:port,...` and resolve host names once; ConfigError names the wrong part."""
    endpoints = []
    for listed in parse_list(text):
        try:
            ip = _ip(listed.host)
        except _NoAnswerError:
            ip = None
        if ip is None:
            raise ConfigError(f"endpoint {listed.address}: the host name can't be resolved")
        endpoints.append(_placed(listed, ip))
    return tuple(endpoints)


def read_endpoints(path: Path) -> tuple[Endpoint, ...]:
    """Read a YAML or JSON file; ConfigError names the line and the wrong field.

    Host names are resolved. An endpoint whose host name can't be resolved is left out.
    """
    return _HostNames().endpoints(_read(path))


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
        self._names = _HostNames()
        pool.replace_endpoints(self._names.endpoints(_read(path)))

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
                self._pool.replace_endpoints(await asyncio.to_thread(self._names.endpoints, listed))
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


def _placed(listed: ListedEndpoint, ip: str) -> Endpoint:
    """Return the endpoint with an IP address, which Envoy needs."""
    metrics = ""
    if listed.metrics is not None:
        host, port = listed.metrics
        # A different metrics host may stay a name, since this picker itself connects to it.
        metrics = join_address(ip if host == listed.host else host, port)
    server_name = listed.server_name or ("" if is_ip(listed.host) else listed.host)
    return Endpoint(listed.name, join_address(ip, listed.port), listed.labels, metrics, server_name)


def _ip(host: str) -> str | None:
    """Return the host's address, None if there is none. Raise _NoAnswerError if nobody knows."""
    if is_ip(host):
        return host
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise _NoAnswerError from error
        return None


class _NoAnswerError(Exception):
    """DNS doesn't answer."""
