"""Addresses as endpoints and gateways write them: host:port, an IPv6 host in brackets."""


def host_of(address: str) -> str:
    """The host of `host:port` or of a bare host, without brackets: `[::1]:80` and `::1` are both `::1`."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, colon, _ = address.rpartition(":")
    return host if colon and ":" not in host else address
