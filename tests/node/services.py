"""Services: their cluster IPs and their names, for pods and for the machine itself.

A proxy in user space listens at each cluster IP and port while an endpoint is ready, and hands connections to the
endpoints in turn. Only TCP; no node ports, load balancers, session affinity or network policies.

Names are told by a DNS server that knows the Services of the cluster and nothing else: A records of a Service, or of a
headless one's ready endpoints.
"""

import asyncio
import itertools
import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lightkube import AsyncClient
from lightkube.resources.core_v1 import Service
from lightkube.resources.discovery_v1 import EndpointSlice

from tests.node.following import follow
from tests.node.network import Subnet, add_address, remove_address

logger = logging.getLogger("agent")

_CHUNK_BYTES = 1 << 16
_SLICE_OF = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Address:
    ip: str
    port: int


Table = Mapping[Address, Sequence[Address]]


class _KnownServices:
    """The last known Services and EndpointSlices."""

    def __init__(self) -> None:
        self.services: dict[str, Any] = {}
        self.slices: dict[str, Any] = {}
        self.changed = asyncio.Event()

    async def follow(self, client: AsyncClient) -> None:
        await asyncio.gather(self._follow(client, Service), self._follow(client, EndpointSlice))

    async def _follow(self, client: AsyncClient, kind: Any) -> None:
        async for known in follow(client, kind):
            if kind is Service:
                self.services = known
            else:
                self.slices = known
            self.changed.set()


async def serve_services(client: AsyncClient, subnet: Subnet, api_port: int) -> None:
    """The proxy, until it is cancelled. The API server, which has no endpoints, listens at 127.0.0.1:`api_port`."""
    cluster, proxy = _KnownServices(), _Proxy(subnet)
    following = asyncio.create_task(cluster.follow(client))
    try:
        while True:
            table = dict(routes(cluster.services, cluster.slices))
            table[Address(subnet.api_server, 443)] = [Address("127.0.0.1", api_port)]
            ips = {ip for service in cluster.services.values() if (ip := cluster_ip(service))}
            await proxy.update(table, {*ips, subnet.api_server})
            await cluster.changed.wait()
            cluster.changed.clear()
    finally:
        following.cancel()
        await proxy.update({}, set())


def routes(services: Mapping[str, Any], slices: Mapping[str, Any]) -> Iterator[tuple[Address, list[Address]]]:
    """Where each Service's ports lead to; those without ready endpoints are left out."""
    for service in services.values():
        ip = cluster_ip(service)
        if not ip:
            continue
        for port in service.spec.ports or ():
            found = [
                Address(address, target.port)
                for part in _slices_of(service, slices)
                for target in part.ports or ()
                if (target.name or "") == (port.name or "") and target.port
                for address in ready_addresses(part)
            ]
            if found and (port.protocol or "TCP") == "TCP":
                yield Address(ip, port.port), found


def cluster_ip(service: Any) -> str:
    """Nothing for a headless one, and for one that has no address."""
    ip: str = service.spec.clusterIP or ""
    return "" if ip == "None" else ip


def ready_addresses(part: Any) -> list[str]:
    """No condition means ready, says the API."""
    endpoints = part.endpoints or ()
    ready = (e for e in endpoints if e.conditions is None or e.conditions.ready in {None, True})
    return [address for endpoint in ready for address in endpoint.addresses]


def _slices_of(service: Any, slices: Mapping[str, Any]) -> list[Any]:
    metadata = service.metadata
    return [
        part
        for part in slices.values()
        if part.metadata.namespace == metadata.namespace
        and (part.metadata.labels or {}).get(_SLICE_OF) == metadata.name
    ]


class _Proxy:
    def __init__(self, subnet: Subnet) -> None:
        self._subnet = subnet
        self._table: Table = {}
        self._servers: dict[Address, asyncio.Server] = {}
        self._ips: set[str] = set()
        self._turns = itertools.count()

    async def update(self, table: Table, ips: set[str]) -> None:
        """`ips` are those of all Services: where nothing listens connections are refused, and don't hang."""
        self._table = table
        for address in self._servers.keys() - table.keys():
            self._servers.pop(address).close()
        for ip in ips - self._ips:
            await asyncio.to_thread(add_address, self._subnet, ip)
        for ip in self._ips - ips:
            await asyncio.to_thread(remove_address, self._subnet, ip)
        self._ips = ips
        for address in table.keys() - self._servers.keys():
            self._servers[address] = await self._listen(address)

    async def _listen(self, address: Address) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            targets = self._table.get(address, ())
            if targets:
                await _join(reader, writer, targets[next(self._turns) % len(targets)])
            else:
                writer.close()

        return await asyncio.start_server(connected, address.ip, address.port)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address) -> None:
    try:
        far_reader, far_writer = await asyncio.open_connection(target.ip, target.port)
    except OSError:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    except OSError:
        writer.transport.abort()
    finally:
        far_writer.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def serve_names(client: AsyncClient, subnet: Subnet) -> None:
    """The DNS server, until it is cancelled."""
    cluster = _KnownServices()
    await asyncio.to_thread(add_address, subnet, subnet.dns)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Names(cluster), local_addr=(subnet.dns, 53))
    try:
        await cluster.follow(client)
    finally:
        transport.close()


class _Names(asyncio.DatagramProtocol):
    def __init__(self, cluster: _KnownServices) -> None:
        self._cluster = cluster

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.DatagramTransport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        with suppress(ValueError, IndexError, struct.error):
            self._transport.sendto(answer(data, self._resolve), address)

    def _resolve(self, name: str) -> list[str] | None:
        labels = name.rstrip(".").lower().split(".")
        if len(labels) != 5 or labels[2:] != ["svc", "cluster", "local"]:
            return None
        service = self._cluster.services.get(f"{labels[1]}/{labels[0]}")
        if service is None:
            return None
        if ip := cluster_ip(service):
            return [ip]
        return [ip for part in _slices_of(service, self._cluster.slices) for ip in ready_addresses(part)]


def answer(query: bytes, resolve: Callable[[str], list[str] | None]) -> bytes:
    """A DNS answer to a question of one name (RFC 1035, section 4). ValueError for what is no such question.

    `resolve` gives addresses, or None for a name that isn't there. Only A records exist.
    """
    identity, flags, questions, *_ = struct.unpack_from(">6H", query)
    if questions != 1 or flags & 0x8000:
        raise ValueError("no question")
    labels, position = [], 12
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode("ascii"))
        position += 1 + length
    kind, _ = struct.unpack_from(">2H", query, position + 1)
    question = query[12 : position + 5]
    found = resolve(".".join(labels))
    records = [_record(ip) for ip in found or ()] if kind == 1 else []
    # An authoritative answer; 3 is NXDOMAIN.
    header = struct.pack(
        ">6H", identity, 0x8400 | (flags & 0x0100) | (3 if found is None else 0), 1, len(records), 0, 0
    )
    return header + question + b"".join(records)


def _record(ip: str) -> bytes:
    """Its name is the question's; nobody keeps it for longer than a second."""
    return struct.pack(">3HIH4B", 0xC00C, 1, 1, 1, 4, *map(int, ip.split(".")))
