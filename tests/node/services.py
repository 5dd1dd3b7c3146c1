"""Cluster IPs and DNS names of Services, for pods and for the machine itself.

A proxy in user space listens at each cluster IP and port while an endpoint is ready. It hands connections to the
endpoints in turn. It supports TCP only, and no node ports, load balancers, session affinity or network policies.

A DNS server answers for the Services of the cluster and for nothing else. It has A records only: a Service's cluster
IP, or the ready endpoints of a headless Service.
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

from tests.node.list_watch import list_and_watch
from tests.node.network import Subnet, add_address, remove_address

logger = logging.getLogger("agent")

_CHUNK_BYTES = 1 << 16
_SERVICE_LABEL = "kubernetes.io/service-name"


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

    async def watch(self, client: AsyncClient) -> None:
        await asyncio.gather(self._watch(client, Service), self._watch(client, EndpointSlice))

    async def _watch(self, client: AsyncClient, kind: Any) -> None:
        async for known in list_and_watch(client, kind):
            if kind is Service:
                self.services = known
            else:
                self.slices = known
            self.changed.set()


async def serve_services(client: AsyncClient, subnet: Subnet, api_port: int) -> None:
    """Run the proxy until cancelled. The API server has no endpoints; it listens at 127.0.0.1:`api_port`."""
    cluster, proxy = _KnownServices(), _Proxy(subnet)
    watching = asyncio.create_task(cluster.watch(client))
    try:
        while True:
            table = dict(routes(cluster.services, cluster.slices))
            table[Address(subnet.api_server, 443)] = [Address("127.0.0.1", api_port)]
            ips = {ip for service in cluster.services.values() if (ip := cluster_ip(service))}
            await proxy.update(table, {*ips, subnet.api_server})
            await cluster.changed.wait()
            cluster.changed.clear()
    finally:
        watching.cancel()
        await proxy.update({}, set())


def routes(services: Mapping[str, Any], slices: Mapping[str, Any]) -> Iterator[tuple[Address, list[Address]]]:
    """Yield each Service port's address and ready endpoints. Leave out ports without ready endpoints."""
    for service in services.values():
        ip = cluster_ip(service)
        if not ip:
            continue
        for port in service.spec.ports or ():
            found = [
                Address(address, target.port)
                for part in _find_slices(service, slices)
                for target in part.ports or ()
                if (target.name or "") == (port.name or "") and target.port
                for address in ready_addresses(part)
            ]
            if found and (port.protocol or "TCP") == "TCP":
                yield Address(ip, port.port), found


def cluster_ip(service: Any) -> str:
    """Return the Service's cluster IP, or an empty text for a headless Service or one without an address."""
    ip: str = service.spec.clusterIP or ""
    return "" if ip == "None" else ip


def ready_addresses(part: Any) -> list[str]:
    """Return the addresses of ready endpoints. By the API's rule, an endpoint without a condition is ready."""
    endpoints = part.endpoints or ()
    ready = (e for e in endpoints if e.conditions is None or e.conditions.ready in {None, True})
    return [address for endpoint in ready for address in endpoint.addresses]


def _find_slices(service: Any, slices: Mapping[str, Any]) -> list[Any]:
    metadata = service.metadata
    return [
        part
        for part in slices.values()
        if part.metadata.namespace == metadata.namespace
        and (part.metadata.labels or {}).get(_SERVICE_LABEL) == metadata.name
    ]


class _Proxy:
    """Listens at the Services' addresses and hands connections to their endpoints in turn."""

    def __init__(self, subnet: Subnet) -> None:
        self._subnet = subnet
        self._table: Table = {}
        self._servers: dict[Address, asyncio.Server] = {}
        self._ips: set[str] = set()
        self._turns = itertools.count()

    async def update(self, table: Table, ips: set[str]) -> None:
        """Listen where the table says.

        `ips` are the addresses of all Services. The machine owns all of them, so that connections to a Service
        without endpoints are refused instead of hanging.
        """
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
    """Run the DNS server until cancelled."""
    cluster = _KnownServices()
    await asyncio.to_thread(add_address, subnet, subnet.dns)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _DnsServer(cluster), local_addr=(subnet.dns, 53))
    try:
        await cluster.watch(client)
    finally:
        transport.close()


class _DnsServer(asyncio.DatagramProtocol):
    """Answers DNS queries for the names of Services."""

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
        return [ip for part in _find_slices(service, self._cluster.slices) for ip in ready_addresses(part)]


def answer(query: bytes, resolve: Callable[[str], list[str] | None]) -> bytes:
    """Answer a DNS query for one name (RFC 1035, section 4). Raise ValueError if `query` is not one.

    `resolve` returns addresses, or None for an unknown name. Only A records exist.
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
    # 0x8400: an authoritative answer. 0x0100: recursion desired, as asked. 3: NXDOMAIN.
    header = struct.pack(
        ">6H", identity, 0x8400 | (flags & 0x0100) | (3 if found is None else 0), 1, len(records), 0, 0
    )
    return header + question + b"".join(records)


def _record(ip: str) -> bytes:
    """Return an A record that points to the question's name, with a TTL of one second."""
    return struct.pack(">3HIH4B", 0xC00C, 1, 1, 1, 4, *map(int, ip.split(".")))
