"""The model servers behind `headroom up`: from URLs to the addresses that picker and Envoy know."""

import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import click

from epp.exceptions import ConfigError
from epp.pool.endpoint_list import ListedEndpoint, parse_file
from epp.scraping.engines import ENGINE_LABELS

_PORTS = {"http": 80, "https": 443}


def is_tls(urls: Sequence[str]) -> bool:
    """Return whether the servers are reached over TLS. A click.UsageError says that some are, and others aren't."""
    secure = [url.lower().startswith("https:") for url in urls]
    if len(set(secure)) > 1:
        first, other = urls[0], urls[secure.index(not secure[0])]
        raise click.UsageError(f"servers are all https:// or all http://, but {first} and {other} differ")
    return any(secure)


def places(urls: Sequence[str]) -> list[ListedEndpoint]:
    """Return the servers at these URLS. A click.UsageError names a URL that can't be used."""
    found = [_place(url) for url in urls]
    addresses = [place.address for place in found]
    for place in found:
        if addresses.count(place.address) > 1:
            raise click.UsageError(f"{place.address} is named more than once")
    return found


def listed_places(file: Path) -> list[ListedEndpoint]:
    """Return the servers in an endpoints file of the picker. A ConfigError says what is wrong with it."""
    try:
        return [
            replace(one, host=_resolved(one.host, one.port), server_name=one.server_name or one.host)
            for one in parse_file(file.read_bytes())
        ]
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def endpoints_file(pool: Sequence[ListedEndpoint]) -> str:
    """Return the content of the picker's endpoints file."""
    return json.dumps(
        {
            "endpoints": [
                {
                    "name": place.name,
                    "address": place.host,
                    "port": place.port,
                    "labels": place.labels,
                    "serverName": place.server_name,
                }
                for place in pool
            ]
        }
    )


def with_engine(place: ListedEndpoint, engine: str) -> ListedEndpoint:
    """Return the server with the label by which the picker knows whose metrics to expect, if the engine is known."""
    return replace(place, labels={ENGINE_LABELS[0]: engine}) if engine else place


def _place(url: str) -> ListedEndpoint:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise click.UsageError(f"{url}: {error}") from error
    if parts.scheme not in _PORTS or not host or parts.path.strip("/"):
        raise click.UsageError(f"{url} is no URL of a server: expected http://HOST:PORT or https://HOST:PORT")
    port = port or _PORTS[parts.scheme]
    try:
        return ListedEndpoint(f"{host}:{port}", _resolved(host, port), port, server_name=host)
    except ConfigError as error:
        raise click.UsageError(f"{url}: {error}") from error


def _resolved(host: str, port: int) -> str:
    """Return the first address of a name. Raise ConfigError for an unknown one."""
    try:
        return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ConfigError(f"the name {host} is unknown: {error.strerror or error}") from error
