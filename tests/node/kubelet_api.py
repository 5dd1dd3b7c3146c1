"""The node's HTTP API, which the API server calls for `kubectl logs` and `kubectl exec`.

exec speaks v5.channel.k8s.io over WebSocket (https://kubernetes.io/docs/reference/command-line-tools-reference/,
KEP-4006): each message's first byte names its stream. The API server must hand kubectl's own WebSocket on:
`--feature-gates=TranslateStreamCloseWebsocketRequests=false`.
"""

import asyncio
import json
import signal
import ssl
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path

from aiohttp import WSMsgType, web

from tests.node.container import ContainerLife
from tests.node.logs import QueryError, select, strip_times
from tests.node.node import Pods
from tests.node.process import Process, StartError, start

_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_CHUNK_BYTES = 1 << 16
_POLL_S = 0.1


def application(pods: Pods) -> web.Application:
    api = _Api(pods)
    app = web.Application()
    app.add_routes(
        [
            web.get("/containerLogs/{namespace}/{pod}/{container}", api.logs),
            web.get("/exec/{namespace}/{pod}/{container}", api.exec),
        ]
    )
    return app


def server_context(certificate: Path, key: Path, client: Path) -> ssl.SSLContext:
    """Return a TLS context that admits only the holder of the `client` certificate: the API server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    return context


class _Api:
    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Send a container's log.

        The query may have follow, previous, timestamps, sinceSeconds, sinceTime, tailLines and limitBytes.
        """
        life = self._life(request)
        query = request.query
        path = life.log(previous=query.get("previous") == "true")
        if not path.exists():
            raise web.HTTPBadRequest(text=f'container "{life.container.name}" has no such log\n')
        data = path.read_bytes()
        try:
            text = select(data.splitlines(keepends=True), query)
        except QueryError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(text)
        if query.get("follow") == "true":
            await _follow(path, len(data), life, response, query)
        return response

    async def exec(self, request: web.Request) -> web.StreamResponse:
        life = self._life(request)
        query = request.query
        if query.get("tty") in {"1", "true"}:
            raise web.HTTPBadRequest(text="this node has no terminals: leave --tty out\n")
        socket = web.WebSocketResponse(protocols=_PROTOCOLS)
        await socket.prepare(request)
        wants_input = query.get("input") in {"1", "true"} or query.get("stdin") == "true"
        try:
            process = await start(life.exec_spec(query.getall("command")), stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except StartError as error:
            await _tell(socket, {"status": "Failure", "reason": "InternalError", "message": str(error), "code": 500})
            return socket
        feed = asyncio.create_task(_feed(socket, process, wants_input))
        outer = process.outer
        assert outer.stdout
        assert outer.stderr
        try:
            await asyncio.gather(_drain(outer.stdout, _STDOUT, socket), _drain(outer.stderr, _STDERR, socket))
            await _tell_end(socket, await process.wait())
        except ConnectionError:
            # The client has gone.
            process.send(signal.SIGKILL)
        feed.cancel()
        return socket

    def _life(self, request: web.Request) -> ContainerLife:
        names = request.match_info
        pod = self._pods.find(names["namespace"], names["pod"])
        life = pod and pod.container(names["container"])
        if not life:
            raise web.HTTPNotFound(text=f"no container {names['container']} of pod {names['pod']} on this node\n")
        return life


async def _follow(
    path: Path, position: int, life: ContainerLife, response: web.StreamResponse, query: Mapping[str, str]
) -> None:
    """Send new log lines until that run of the container has ended."""
    with path.open("rb") as file:
        file.seek(position)
        while True:
            last = life.process is None or life.log() != path
            lines = file.readlines()
            if lines:
                await response.write(b"".join(strip_times(lines, query)))
            elif last:
                return
            await asyncio.sleep(_POLL_S)


async def _feed(socket: web.WebSocketResponse, process: Process, wanted: bool) -> None:
    """Hand the client's input to the process. Kill the process when the client has gone."""
    stdin = process.outer.stdin
    assert stdin
    if not wanted:
        stdin.close()
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        if message.data[0] == _STDIN and wanted:
            stdin.write(message.data[1:])
            await stdin.drain()
        elif message.data[0] == _CLOSE and message.data[1:2] == bytes([_STDIN]):
            stdin.close()
    process.send(signal.SIGKILL)


async def _drain(reader: asyncio.StreamReader, channel: int, socket: web.WebSocketResponse) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        await socket.send_bytes(bytes([channel]) + chunk)


async def _tell_end(socket: web.WebSocketResponse, code: int) -> None:
    if code == 0:
        await _tell(socket, {"status": "Success"})
        return
    details = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    text = f"command terminated with non-zero exit code: exit status {code}"
    await _tell(socket, {"status": "Failure", "reason": "NonZeroExitCode", "message": text, "details": details})


async def _tell(socket: web.WebSocketResponse, status: dict[str, object]) -> None:
    """Send the last message, the API's Status object, and close the socket."""
    await socket.send_bytes(bytes([_ERROR]) + json.dumps({"metadata": {}, **status}).encode())
    await socket.close()
