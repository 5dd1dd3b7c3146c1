"""The relay between two parts of the loop passes bytes, and stops, delays or resets them on demand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from headroom.processes.ports import free_ports
from lab.chaos.links import LINKS, Links
from lab.chaos.relay import CUT, DELAYED, RESET, Relay
from lab.loop.stack import StackConfig, parts, unused_ports

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def connect(relay: Relay) -> AsyncIterator[Connect]:
    writers = []

    async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writers.append(writer)
        return reader, writer

    yield connected
    for writer in writers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """Yield a relay to a server that answers with what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    here, there = free_ports(2)
    server = await asyncio.start_server(echo, "127.0.0.1", there)
    relay = Relay(here, there)
    await relay.start()
    yield relay
    await relay.stop()
    server.close()


async def test_a_relay_passes_bytes_and_the_end_in_both_directions(relay: Relay, connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"a" * 500_000)
    writer.write_eof()
    assert await reader.read() == b"a" * 500_000


async def test_nothing_passes_a_cut_relay_until_it_is_mended(relay: Relay, connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"before")
    assert await reader.readexactly(6) == b"before"
    relay.breaks(CUT)
    writer.write(b"after")
    asked = asyncio.create_task(reader.readexactly(5))
    late_reader, late_writer = await connect()
    late_writer.write(b"late")
    late = asyncio.create_task(late_reader.readexactly(4))
    done, _ = await asyncio.wait((asked, late), timeout=0.05)
    assert not done
    relay.mend()
    assert (await asked, await late) == (b"after", b"late")


async def test_a_delayed_relay_holds_every_piece_but_no_piece_twice(relay: Relay, connect: Connect) -> None:
    reader, writer = await connect()
    relay.breaks(DELAYED)
    clock = asyncio.get_running_loop().time
    began_s = clock()
    for _ in range(20):
        writer.write(b"a")
        await asyncio.sleep(0.001)
    await reader.readexactly(20)
    assert clock() - began_s >= 0.2


async def test_a_reset_relay_ends_connections_and_takes_no_others(relay: Relay, connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"a")
    await reader.readexactly(1)
    relay.breaks(RESET)
    for one in (reader, (await connect())[0]):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await one.readexactly(1)
    relay.mend()
    reader, writer = await connect()
    writer.write(b"b")
    assert await reader.readexactly(1) == b"b"


def test_picker_and_envoy_see_nothing_but_relays(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = StackConfig(folder=tmp_path_factory.mktemp("loop"), hardware=("fast", "slow"), ports=unused_ports(2))
    links = Links(config)
    seen = StackConfig(
        folder=config.folder,
        hardware=config.hardware,
        ports=config.ports,
        picker_sees=links.picker,
        envoy_sees=links.envoy,
        metrics_ports=links.metrics_ports,
    )
    *_, picker, _ = parts(seen)
    hidden = {*config.ports.predictors, config.ports.trainer, config.ports.first_server, config.ports.first_server + 1}
    words = " ".join(picker.command) + seen.endpoints_file.read_text()
    assert not any(str(port) in words for port in hidden)
    envoy = (seen.folder / "envoy.json").read_text()
    assert not any(str(port) in envoy for port in (hidden | {config.ports.picker}) - set(config.ports.predictors))
    assert len(set(LINKS)) == 6
