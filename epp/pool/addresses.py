"""Addresses of endpoints: `10.0.0.1:8000` and `[fd00::1]:8000`."""

import ipaddress
import re

from epp.exceptions import ConfigError

_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?")
_NUMBERS = re.compile(r"[0-9.]+")


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port` into the host, without brackets, and the port; ConfigError when the text has another form."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ConfigError(f"{text!r}: expected host:port")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(f"{text!r}: an IPv6 address goes in brackets, as in [fd00::1]:8000")
    return check_host(host), check_port(port)


def host_of(address: str) -> str:
    """Return the host of `host:port` or of a bare host, without brackets: `[::1]:80` and `::1` both give `::1`."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, colon, _ = address.rpartition(":")
    return host if colon and ":" not in host else address


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_host(host: str) -> str:
    """Return the host, without brackets; ConfigError when the host is neither an IP address nor a name."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if is_ip(bare) and (bare == host or ":" in bare):
        return bare
    if _NUMBERS.fullmatch(host) or not _NAME.fullmatch(host):
        raise ConfigError(f"{host!r}: expected an IPv4 address, an IPv6 address or a host name")
    return host


def check_port(port: str | int) -> int:
    """Return the port as a number; ConfigError unless the port is between 1 and 65535."""
    text = str(port)
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise ConfigError(f"{text!r}: expected a port between 1 and 65535")
    return int(text)


def is_ip(host: str) -> bool:
    """Return whether the text is an IPv4 or IPv6 address without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
