"""The address of an endpoint's metrics page, and the request for it."""

import ssl
from dataclasses import dataclass, field

from epp.exceptions import ConfigError
from epp.pool.addresses import host_of, join_address, split_address
from epp.scheduling.snapshot import Endpoint
from epp.scraping.page_access import PageAccess


@dataclass(frozen=True, slots=True)
class PageAddress:
    """With `tls`, the server's certificate must name `server_name`. The request may hold a token."""

    host: str
    port: int
    url: str
    request: bytes = field(repr=False)
    tls: ssl.SSLContext | None
    server_name: str | None


class PageLocator:
    """The parts of the address that all endpoints share. `port` 0 is each one's own; a bad path raises ConfigError."""

    def __init__(self, access: PageAccess, port: int, path: str) -> None:
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise ConfigError(f"--model-server-metrics-path {path!r}: expected a path that begins with /")
        self._access = access
        self._port = port
        self._path = path

    def locate(self, endpoint: Endpoint) -> PageAddress:
        """Return the address that the endpoint names, else the common port of its host."""
        access = self._access
        host, port = split_address(endpoint.metrics_address or endpoint.address)
        if self._port and not endpoint.metrics_address:
            port = self._port
        # The connection goes to the endpoint's own address: its name may have several.
        own_name = endpoint.server_name if host == host_of(endpoint.address) else ""
        server_name = (own_name or host) if access.tls else None
        authority = join_address(server_name or host, port)
        url = f"{access.scheme}://{authority}{self._path}"
        return PageAddress(host, port, url, self._request(authority), access.tls, server_name)

    def _request(self, authority: str) -> bytes:
        lines = [f"GET {self._path} HTTP/1.1", f"Host: {authority}", "Accept: text/plain", "User-Agent: headroom-epp"]
        if self._access.authorization:
            lines.append(f"Authorization: {self._access.authorization}")
        return "\r\n".join((*lines, "", "")).encode()
