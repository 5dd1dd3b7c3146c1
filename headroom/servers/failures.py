"""Say in words why a server can't be looked at, and what to do about it."""

import asyncio
import os
import ssl
from urllib.parse import urlsplit

import aiohttp

from headroom.servers.access import CA_FLAG, INSECURE_FLAG, ServerAccess
from serving.tls_errors import describe_tls_error

TIMEOUT = aiohttp.ClientTimeout(total=10)
_HANDSHAKE_S = 5.0


class UnusableError(Exception):
    """The server answers, but not as a model server."""


async def describe_failure(error: aiohttp.ClientError | TimeoutError | UnusableError, url: str) -> str:
    """Return why the server at `url` can't be used."""
    if isinstance(error, TimeoutError):
        return f"it didn't answer in {TIMEOUT.total:g} s"
    if isinstance(error, aiohttp.InvalidURL):
        return "this is no URL of a server: expected http://HOST:PORT or https://HOST:PORT"
    if isinstance(error, aiohttp.ClientConnectorCertificateError) and isinstance(error.certificate_error, ssl.SSLError):
        return f"{describe_tls_error(error.certificate_error, CA_FLAG)} ({INSECURE_FLAG} accepts any)"
    if isinstance(error, aiohttp.ClientConnectorSSLError) and isinstance(error.os_error, ssl.SSLError):
        return describe_tls_error(error.os_error, CA_FLAG)
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it can't be reached: {os.strerror(error.errno) if error.errno else error}"
    if await _speaks_tls(url):
        return "it speaks TLS: expected https://"
    return str(error) or type(error).__name__


async def _speaks_tls(url: str) -> bool:
    """Return whether the server at an http:// URL takes a TLS handshake. Servers answer plain HTTP in various ways."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return False
    tls = ServerAccess(accepts_any=True).context()
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, ssl=tls)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
