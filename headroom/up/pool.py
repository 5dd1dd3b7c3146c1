"""The model servers behind `headroom up`: from URLs to the addresses that picker and Envoy know."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import click

from epp.scraping.engines import ENGINE_LABELS


@dataclass(frozen=True, slots=True)
class Place:
    """A model server: its name and its numeric address. `engine` is what it runs, as far as that is known."""

    name: str
    host: str
    port: int
    engine: str = ""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def places(urls: Sequence[str]) -> list[Place]:
    """Return the servers at these URLS. A click.UsageError names a URL that can't be used."""
    found = [_place(url) for url in urls]
    addresses = [place.address for place in found]
    for place in found:
        if addresses.count(place.address) > 1:
            raise click.UsageError(f"{place.address} is named more than once")
    return found


def endpoints_file(pool: Sequence[Place]) -> str:
    """Return the content of the picker's endpoints file."""
    return json.dumps(
        {
            "endpoints": [
                {"name": place.name, "address": place.host, "port": place.port, "labels": _labels(place)}
                for place in pool
            ]
        }
    )


def _labels(place: Place) -> dict[str, str]:
    """Return the label by which the picker knows whose metrics to expect."""
    return {ENGINE_LABELS[0]: place.engine} if place.engine else {}


def _place(url: str) -> Place:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise click.UsageError(f"{url}: {error}") from error
    if parts.scheme == "https":
        raise click.UsageError(f"{url}: only servers without TLS can be used: expected http://HOST:PORT")
    if parts.scheme != "http" or not host or parts.path.strip("/"):
        raise click.UsageError(f"{url} is no URL of a server: expected http://HOST:PORT")
    try:
        address = socket.getaddrinfo(host, port or 80, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise click.UsageError(f"{url}: the name {host} is unknown: {error.strerror or error}") from error
    return Place(f"{host}:{port or 80}", str(address), port or 80)
