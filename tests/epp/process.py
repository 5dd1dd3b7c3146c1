"""Run the picker as a process, and call it with grpcio's client like Envoy."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from epp.extproc.front import PATH
from epp.extproc.messages import BodyMode
from epp.extproc.protocol.external_processor_pb2 import (
    HttpBody,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from headroom.processes.ports import free_port
from tests.epp.parts import CHAT, header_block
from tests.live import PATIENCE_S, call, until

ENDPOINTS = "a=127.0.0.1:1,b=127.0.0.1:2"


@dataclass(frozen=True)
class PickerProcess:
    grpc_port: int
    health_port: int
    metrics_port: int
    process: "subprocess.Popen[str]"
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}"

    def metrics(self) -> str:
        return str(call(f"{self.url}/metrics")[1])

    def in_flight(self) -> int:
        return int(call(f"{self.url}/debug/endpoints")[1]["in_flight"])

    def channel(self) -> grpc.aio.Channel:
        """Return a channel with its own connection."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}", options)

    def is_serving(self, service: str = "readiness") -> bool:
        """Return whether the health port reports `service` as serving."""
        with grpc.insecure_channel(f"127.0.0.1:{self.health_port}") as channel:
            answer = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=PATIENCE_S)
            return bool(answer.status == HealthCheckResponse.SERVING)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextmanager
def picker_process(
    folder: Path, *flags: str, endpoints: str = ENDPOINTS, env: Mapping[str, str] | None = None
) -> Iterator[PickerProcess]:
    """Ready to be asked; without TLS unless a flag says otherwise."""
    ports = [free_port() for _ in range(3)]
    names = ("--grpc-port", "--grpc-health-port", "--metrics-port")
    command = [sys.executable, "-m", "epp", "--host", "127.0.0.1", "--secure-serving=false"]
    command += ["--endpoints", endpoints] if endpoints else []
    command += ["--shutdown-delay", "0s", "--drain-timeout", "5s"]
    command += [text for name, port in zip(names, ports, strict=True) for text in (name, str(port))]
    log = folder / "picker.log"
    settings = os.environ | (env or {})
    with (
        log.open("w") as output,
        subprocess.Popen([*command, *flags], stdout=output, stderr=output, text=True, env=settings) as process,
    ):
        picker = PickerProcess(ports[0], ports[1], ports[2], process, log)
        try:
            workers = int(flags[flags.index("--workers") + 1]) if "--workers" in flags else 1
            until(lambda: _ready_workers(picker) == workers)
            yield picker
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()


class Stream:
    """One request's ext_proc stream, in the modes of a gateway."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        method = channel.stream_stream(PATH, ProcessingRequest.SerializeToString, ProcessingResponse.FromString)
        self._call = method()

    async def pick(self, headers: Mapping[str, str] | None = None, body: bytes = CHAT) -> ProcessingResponse:
        """Send the request. Return the answer, which names the endpoint or refuses."""
        both = BodyMode.FULL_DUPLEX_STREAMED
        protocol = ProtocolConfiguration(request_body_mode=both, response_body_mode=both)
        block = header_block(dict(headers or {}), end_of_stream=False)
        await self._call.write(ProcessingRequest(request_headers=block, protocol_config=protocol))
        await self._call.write(ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True)))
        answer: ProcessingResponse = await self._call.read()
        if answer.HasField("request_headers"):
            await self._call.read()
        return answer

    async def respond(self, *events: bytes, content_type: str = "text/event-stream") -> None:
        """Plays the model server's response, to its end."""
        block = header_block({":status": "200", "content-type": content_type}, end_of_stream=False)
        await self._call.write(ProcessingRequest(response_headers=block))
        await self._call.read()
        for index, event in enumerate(events):
            is_last = index == len(events) - 1
            await self._call.write(ProcessingRequest(response_body=HttpBody(body=event, end_of_stream=is_last)))
            await self._call.read()

    async def end(self) -> grpc.StatusCode:
        await self._call.done_writing()
        while await self._call.read() is not grpc.aio.EOF:
            pass
        return await self._call.code()

    def cancel(self) -> None:
        self._call.cancel()


def token(content: str, **fields: Any) -> bytes:
    return f'data: {{"choices":[{{"delta":{{"content":"{content}"}}}}]}}\n\n'.encode()


def _ready_workers(picker: PickerProcess) -> int:
    log = picker.log.read_text()
    assert picker.process.poll() is None, log
    return log.count("ready: ext_proc")
