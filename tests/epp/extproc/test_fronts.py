"""Test both gRPC fronts with grpcio's client over real connections."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from epp.extproc.front import HEALTH_SERVICES, PATH, SERVICE, Front, FrontSettings, start
from epp.extproc.health import Health
from epp.extproc.http2 import frames as h2
from epp.extproc.http2.headers import write_headers
from serving.exceptions import StartError
from tests.epp.extproc.exchanges import Book
from tests.epp.extproc.http2.peer import REQUEST, grpc_message, open_stream, read_all, trailers
from tests.epp.extproc.http2.peer import answers as answers_of
from tests.live import PATIENCE_S

SETTINGS = FrontSettings(host="127.0.0.1", port=0, health_port=0, certificates=None, health_checking=True)
BIG = 20_000_000
NO_LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture(params=["http2", "grpcio"])
def settings(request: pytest.FixtureRequest) -> FrontSettings:
    return replace(SETTINGS, front=request.param)


@asynccontextmanager
async def served(settings: FrontSettings, book: Book | None = None) -> AsyncIterator[tuple[Front, Health, Any]]:
    """Run a front. Yield it with its health and a channel to it."""
    health = Health(HEALTH_SERVICES)
    health.set_all(True)
    front = await start(settings, (book or Book()).new_exchange, health)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}", options=NO_LIMITS) as channel:
            yield front, health, channel
    finally:
        await front.stop(0)


async def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def ask(channel: Any, *messages: bytes) -> tuple[list[bytes], grpc.StatusCode, str]:
    """Send all messages and the end of the stream. Return the answers, the status and its text."""
    call = channel.stream_stream(PATH)(iter(messages))
    answers = []
    try:
        async for answer in call:
            answers.append(answer)  # noqa: PERF401 (those before an error count)
    except grpc.aio.AioRpcError:
        pass
    return answers, await call.code(), await call.details()


async def test_messages_are_answered_in_their_order(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (_, _, channel):
        answers, status, _ = await ask(channel, b"a", b"", b"later b", b"none", b"twice c", b"later d", b"e")
        assert answers == [b"a", b"", b"later b", b"twice c", b"twice c", b"later d", b"e"]
        assert status == grpc.StatusCode.OK
        await until(lambda: book.closed == 1)


async def test_the_gateways_span_is_told_to_the_exchange(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (_, _, channel):
        for metadata in (None, (("traceparent", "00-1-2-01"),)):
            call = channel.stream_stream(PATH)(iter([b"a"]), metadata=metadata)
            assert [answer async for answer in call] == [b"a"]
    assert book.traceparents == ["00-1-2-01"]


async def test_a_stream_without_messages_ends_well(settings: FrontSettings) -> None:
    async with served(settings) as (_, _, channel):
        answers, status, _ = await ask(channel)
        assert (answers, status) == ([], grpc.StatusCode.OK)


async def test_each_message_is_answered_before_the_next_comes(settings: FrontSettings) -> None:
    async with served(settings) as (_, _, channel):
        call = channel.stream_stream(PATH)()
        for number in range(50):
            await call.write(str(number).encode())
            assert await call.read() == str(number).encode()
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


def is_settled(book: Book, before: int) -> bool:
    return book.settled > before


async def test_an_exchange_is_settled_when_its_answer_is_sent(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (_, _, channel):
        call = channel.stream_stream(PATH)()
        for message in (b"a", b"later"):
            settled = book.settled
            await call.write(message)
            assert await call.read() == message
            await until(partial(is_settled, book, settled))
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_large_messages_pass_both_ways(settings: FrontSettings) -> None:
    async with served(settings) as (_, _, channel):
        message = bytes(range(256)) * (BIG // 256)
        answers, status, _ = await ask(channel, b"x", message, b"y", message[1:])
        assert status == grpc.StatusCode.OK
        assert answers == [b"x", message, b"y", message[1:]]


async def test_large_messages_are_passed_on_without_a_copy() -> None:
    """A copy of a body of 31 MB held up the event loop for 16 ms."""
    book = Book()
    async with served(SETTINGS, book) as (_, _, channel):
        message = bytes(1 << 20)
        answers, _, _ = await ask(channel, b"x", message, message, b"y")
        assert answers == [b"x", message, message, b"y"]
    assert book.uncopied >= 1


async def test_many_streams_share_a_connection(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (_, _, channel):
        sent = [[f"{stream} {number}".encode() * 50 for number in range(5)] for stream in range(200)]
        found = await asyncio.gather(*(ask(channel, *messages) for messages in sent))
        assert [answers for answers, _, _ in found] == sent
        await until(lambda: book.closed == book.opened == 200)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"junk", grpc.StatusCode.INVALID_ARGUMENT),
        (b"fail", grpc.StatusCode.INTERNAL),
        (b"later fail", grpc.StatusCode.INTERNAL),
        (bytes(1001), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["junk", "fail", "fail later", "too large"],
)
async def test_a_failing_stream_leaves_the_others_alone(
    settings: FrontSettings, message: bytes, status: grpc.StatusCode
) -> None:
    book = Book()
    async with served(replace(settings, max_message_bytes=1000), book) as (_, _, channel):
        other = channel.stream_stream(PATH)()
        await other.write(b"before")
        answers, found, text = await ask(channel, b"a", message)
        assert (answers, found) == ([b"a"], status)
        assert text
        await until(lambda: book.closed == 1)
        await other.write(b"after")
        assert [await other.read(), await other.read()] == [b"before", b"after"]


async def test_an_unknown_method_is_refused(settings: FrontSettings) -> None:
    async with served(settings) as (_, _, channel):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/no.Service/Method")(b"")
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("message", [b"a", b"wait"])
async def test_a_cancelled_stream_closes_its_exchange(settings: FrontSettings, message: bytes) -> None:
    book = Book()
    async with served(settings, book) as (_, _, channel):
        call = channel.stream_stream(PATH)()
        await call.write(message)
        await until(lambda: book.received == [message])
        call.cancel()
        await until(lambda: book.closed == 1)


async def test_a_stream_past_its_deadline_closes_its_exchange(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (_, _, channel):
        call = channel.stream_stream(PATH)(timeout=0.2)
        await call.write(b"wait")
        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: book.closed == 1)


async def test_a_stream_past_its_deadline_ends_though_its_client_is_silent() -> None:
    book = Book()
    async with served(SETTINGS, book) as (front, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        block = write_headers([*REQUEST, ("grpc-timeout", "50m")])
        writer.write(h2.PREFACE + h2.settings_frame({}) + open_stream(1, block))
        writer.write(h2.frame(h2.DATA, 0, 1, grpc_message(b"a") + grpc_message(b"wait")))
        await until(lambda: book.closed == 1)
        writer.write(h2.frame(h2.GOAWAY, 0, 0, bytes(8)))
        found = read_all(await reader.read())
        assert (answers_of(found), trailers(found)["grpc-status"]) == ([b"a"], "4")
        writer.close()


async def test_a_lost_connection_closes_its_exchanges(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (front, _, _):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            calls = [channel.stream_stream(PATH)() for _ in range(3)]
            for call in calls:
                await call.write(b"wait")
            await until(lambda: len(book.received) == 3)
        await until(lambda: book.closed == 3)


async def test_a_client_that_does_not_read_is_slowed_down_and_loses_nothing(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (_, _, channel):
        call = channel.stream_stream(PATH)()
        other = channel.stream_stream(PATH)()
        messages = [bytes([number]) * 1_000_000 for number in range(60)]

        async def write() -> None:
            for message in messages:
                await call.write(message)
            await call.done_writing()

        writing = asyncio.create_task(write())
        await until(lambda: len(book.received) > 1)
        await other.write(b"x")
        assert await other.read() == b"x"
        assert not writing.done()
        assert [await call.read() for _ in messages] == messages
        await writing
        assert await call.code() == grpc.StatusCode.OK


async def test_both_ports_answer_health_checks(settings: FrontSettings) -> None:
    async with served(settings) as (front, health, _):
        for port in (front.port, front.health_port):
            health.set("readiness", True)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                for service in HEALTH_SERVICES:
                    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
                health.set("readiness", False)
                assert (await stub.Check(health_pb2.HealthCheckRequest(service="readiness"))).status == NOT_SERVING
                listed = await stub.List(health_pb2.HealthListRequest())
                assert set(listed.statuses) == set(HEALTH_SERVICES)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Check(health_pb2.HealthCheckRequest(service="other"))
                assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_health_watch_reports_changes_until_the_front_stops(settings: FrontSettings) -> None:
    async with served(settings) as (front, health, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        known = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="new"))
        assert (await known.read()).status == SERVING
        assert (await unknown.read()).status == UNKNOWN
        health.set(SERVICE, False)
        health.set("new", True)
        assert (await known.read()).status == NOT_SERVING
        assert (await unknown.read()).status == SERVING
        health.drain()
        await front.stop(10)
        assert (await unknown.read()).status == NOT_SERVING
        assert await known.code() == await unknown.code() == grpc.StatusCode.UNAVAILABLE


async def test_the_ext_proc_port_may_leave_health_out(settings: FrontSettings) -> None:
    async with served(replace(settings, health_checking=False, health_port=None)) as (front, _, channel):
        assert front.health_port is None
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services_and_their_messages(settings: FrontSettings, version: str) -> None:
    async with served(settings) as (_, _, channel):
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        services = {service.name for service in (await call.read()).list_services_response.service}
        assert services == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        for wrong in (f"{SERVICE}.No", "no.Service.Method", ""):
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=wrong))
            assert (await call.read()).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        by_method = reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.Process")
        await call.write(by_method)
        resolved = await call.read()
        assert resolved.original_request == by_method
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE))
        files = descriptor_pool.DescriptorPool()
        by_service = (await call.read()).file_descriptor_response
        assert resolved.file_descriptor_response == by_service
        for file in reversed(by_service.file_descriptor_proto):
            files.AddSerializedFile(file)
        assert (
            files.FindMethodByName(f"{SERVICE}.Process").input_type.full_name
            == "envoy.service.ext_proc.v3.ProcessingRequest"
        )
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_open_streams_end_by_themselves_while_the_front_drains(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (front, _, channel):
        call = channel.stream_stream(PATH)()
        await call.write(b"a")
        assert await call.read() == b"a"
        stopping = asyncio.create_task(front.stop(60))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as late:
            await until_refused(late)
        await call.write(b"wait")
        await until(lambda: book.received[-1] == b"wait")
        assert not stopping.done()
        book.released.set()
        assert await call.read() == b"wait"
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
        await stopping
        assert book.closed == 1


async def until_refused(channel: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(channel, b"x"))[1] != grpc.StatusCode.UNAVAILABLE:
            await asyncio.sleep(0.01)


async def test_streams_that_outlive_the_grace_are_ended(settings: FrontSettings) -> None:
    book = Book()
    async with served(settings, book) as (front, _, channel):
        calls = [channel.stream_stream(PATH)() for _ in range(2)]
        for call, message in zip(calls, (b"a", b"wait"), strict=True):
            await call.write(message)
        assert await calls[0].read() == b"a"
        await until(lambda: len(book.received) == 2)
        await front.stop(0.05)
        assert book.closed == 2
        for call in calls:
            assert await call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


async def test_a_lost_client_does_not_delay_the_stop(settings: FrontSettings) -> None:
    async with served(settings) as (front, _, _):
        client = socket.create_connection(("127.0.0.1", front.port))
        client.setblocking(False)
        # Once the server's first frame arrives, it has accepted the connection.
        assert await asyncio.get_running_loop().sock_recv(client, 9)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await front.stop(0)


async def test_the_error_about_a_taken_port_names_it(settings: FrontSettings) -> None:
    async with served(settings) as (front, _, _):
        for taken in (replace(settings, port=front.port), replace(settings, health_port=front.port)):
            with pytest.raises(StartError, match=str(front.port)):
                await start(taken, Book().new_exchange, Health(()))


async def test_several_fronts_can_share_a_port(settings: FrontSettings) -> None:
    shared = replace(settings, reuse_port=True)
    async with served(shared) as (front, _, channel):
        second = await start(replace(shared, port=front.port), Book().new_exchange, Health(()))
        assert second.port == front.port
        await second.stop(0)
        assert (await ask(channel, b"a"))[0] == [b"a"]
