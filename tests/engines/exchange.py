"""Send a case through OpenAI's client, and keep the bytes of the answer."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI

from tests.engines.cases import Case

# Ids and times, which differ between two answers to one request.
_DIFFERENT = re.compile(
    rb'"(id|request_id|item_id|response_id|call_id|created|created_at|completed_at|token_created_at)":("[^"]*"|[\d.]+)'
)
# Fields whose texts come in parts.
_TEXTS = ("content", "reasoning", "text", "delta", "arguments")
_SECONDS = 300.0


@dataclass
class Answer:
    """An answer with the request's body. `error` is the client's exception, if it has raised one."""

    request: bytes = b""
    status: int = 0
    content_type: str = ""
    pieces: list[bytes] = field(default_factory=list)
    error: str = ""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def fixed(self) -> tuple[int, str, str, object]:
        """Return what two answers to one request have in common.

        Ids and times differ. vLLM sends several tokens in one event when they are ready at once, so that a stream's
        texts are compared whole.
        """
        same = _DIFFERENT.sub(rb'"\1":0', self.body)
        return self.status, self.content_type, self.error, joined(same) if b"data:" in same else same


def joined(stream: bytes) -> dict[str, Any]:
    """Return all values of a stream's events by their paths. Texts and lists of several events are joined.

    A path begins with the event's type, and names a choice or a tool call by its index. Of other values the last one
    counts.
    """
    whole: dict[str, Any] = {}
    for line in stream.split(b"\n"):
        if not line.startswith(b"data: {"):
            # Names of events, comments and the stream's end. Their number depends on the number of events.
            whole[line.decode()] = True
            continue
        event = json.loads(line[6:])
        event.pop("sequence_number", None)
        for path, value in _leaves(event, event.get("type", "")):
            is_part = isinstance(value, list) or path.rpartition("/")[2] in _TEXTS
            whole[path] = whole[path] + value if is_part and whole.get(path) and value else value or whole.get(path)
    return whole


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of a JSON document that aren't objects, and lists of objects without an index."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _leaves(one, f"{path}/{name}")
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "index" in value[0]:
        for one in value:
            yield from _leaves(one, f"{path}/{one['index']}")
    else:
        yield path, value


class _Kept(httpx2.AsyncByteStream):
    """A response's bytes, kept as they pass."""

    def __init__(self, stream: httpx2.AsyncByteStream, pieces: list[bytes]) -> None:
        self._stream, self._pieces = stream, pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._pieces.append(piece)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Keeping(httpx2.AsyncHTTPTransport):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._answer.request = request.content
        response = await super().handle_async_request(request)
        self._answer.status = response.status_code
        self._answer.content_type = response.headers.get("content-type", "")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Kept(response.stream, self._answer.pieces)
        return response


async def ask(url: str, case: Case, request_id: str = "") -> Answer:
    """Send a case to the server at `url`; return its answer, an error's as well."""
    answer = Answer()
    headers = {"x-request-id": request_id} if request_id else {}
    # An encoded body would hide differences, and has none to compare byte by byte.
    http = httpx2.AsyncClient(transport=_Keeping(answer), timeout=_SECONDS, headers={"accept-encoding": "identity"})
    async with AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http, default_headers=headers
    ) as client:
        try:
            await case(client)
        except openai.APIStatusError as error:
            answer.error = type(error).__name__
    return answer
