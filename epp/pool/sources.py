"""Where endpoints come from: a list on the command line, or a file that is watched."""

import asyncio
import logging
from collections.abc import Hashable
from pathlib import Path

import msgspec
import yaml

from epp.exceptions import ConfigError
from epp.pool.pool import Pool
from epp.scheduling.snapshot import Endpoint

logger = logging.getLogger("headroom.epp.endpoints")

_MAX_FILE_BYTES = 1 << 20


class EndpointSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    port: int
    name: str = ""
    labels: dict[str, str] = {}


class EndpointsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`endpoints:` a list of name, address, port and labels."""

    endpoints: tuple[EndpointSpec, ...]


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """From `[name=]host:port,...`; ConfigError names the part that is wrong."""
    endpoints = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, address = part.rpartition("=")
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"endpoint {part!r}: expected [name=]host:port")
        endpoints.append(Endpoint(name or address, address))
    return tuple(endpoints)


def read_endpoints(path: Path) -> tuple[Endpoint, ...]:
    """From a YAML or JSON file; ConfigError names the field that is wrong."""
    try:
        text = path.read_bytes()
        if len(text) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_FILE_BYTES} bytes")
        document = msgspec.convert(yaml.safe_load(text), EndpointsFile)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return tuple(
        Endpoint(spec.name or f"{spec.address}:{spec.port}", f"{spec.address}:{spec.port}", spec.labels)
        for spec in document.endpoints
    )


async def watch_endpoints(path: Path, pool: Pool, interval_s: float = 1.0) -> None:
    """Keeps the pool as the file says, until cancelled; a file that turns wrong changes nothing."""
    seen: object = None
    while True:
        stamp = _stamp(path)
        if stamp is not None and stamp != seen:
            try:
                endpoints = read_endpoints(path)
                pool.replace_endpoints(endpoints)
                logger.info("%d endpoints from %s", len(endpoints), path)
            except ConfigError as error:
                logger.error("endpoints unchanged: %s", error)
        seen = stamp
        await asyncio.sleep(interval_s)


def _stamp(path: Path) -> Hashable:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
