"""The address of an endpoint's metrics page, and the request for it."""

import ssl
from dataclasses import dataclass

from epp.exceptions import ConfigError
from epp.pool.addresses import join_address, split_address
from epp.scheduling.snapshot import Endpoint


@dataclass(frozen=True, slots=True)
class PageAddress:
    host: str
    port: int
    url: str
    request: bytes
    tls: ssl.SSLContext | None


class PageLocator:
    """The parts of the address that all endpoints share. `port` 0 is each one's own; a bad path raises ConfigError."""

    def __init__(self, scheme: str, port: int, path: str, verify_tls: bool) -> None:
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise ConfigError(f"--model-server-metrics-path {path!r}: expected a path that begins with /")
        self._scheme = scheme
        self._port = port
        self._path = path
        self._tls = _tls_context(verify_tls) if scheme == "https" else None

    def locate(self, endpoint: Endpoint) -> PageAddress:
        """Return the address that the endpoint names, else the common port of its host."""
        host, port = split_address(endpoint.metrics_address or endpoint.address)
        if self._port and not endpoint.metrics_address:
            port = self._port
        authority = join_address(host, port)
        lines = (f"GET {self._path} HTTP/1.1", f"Host: {authority}", "Accept: text/plain", "User-Agent: headroom-epp")
        request = "\r\n".join((*lines, "", "")).encode()
        return PageAddress(host, port, f"{self._scheme}://{authority}{self._path}", request, self._tls)


def _tls_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
