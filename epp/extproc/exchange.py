"""The ext_proc exchange for one HTTP request, knowing no transport: a message's bytes in, answers' bytes out.

Envoy's first message says how it sends bodies. In the modes of a gateway (FULL_DUPLEX_STREAMED) nothing is answered
until the request's body has ended, and every body is handed back. In a standalone Envoy's cheaper modes the headers
are let through at once while Envoy holds them back, and the answer to the buffered body carries the choice.
"""

from typing import Final

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from epp.director import Assignment, Director
from epp.exceptions import RequestError
from epp.extproc import messages
from epp.extproc.messages import BodyMode

MAX_BODY_BYTES: Final = 64 << 20
REMOVED_HEADERS: Final = (
    "x-gateway-inference-objective",
    "x-gateway-inference-fairness-id",
    "x-gateway-model-name-rewrite",
)

_OBSERVE = messages.continue_with_body_mode(BodyMode.STREAMED)
_IGNORE = messages.continue_with_body_mode(BodyMode.NONE)


class Exchange:
    """Feed it every message of a stream in order, and close it when the stream ends, however it ends."""

    __slots__ = (
        "_assignment",
        "_body",
        "_director",
        "_headers",
        "_request_mode",
        "_response_mode",
        "_started_at",
        "_subset",
    )

    def __init__(self, director: Director) -> None:
        self._director = director
        self._started_at = director.clock()
        self._assignment: Assignment | None = None
        self._headers: dict[str, str] = {}
        self._subset: frozenset[str] | None = None
        self._body = bytearray()
        self._request_mode: int = BodyMode.FULL_DUPLEX_STREAMED
        self._response_mode: int = BodyMode.FULL_DUPLEX_STREAMED

    async def receive(self, data: bytes) -> list[bytes]:
        """The answers to one message; none while more of the request is needed."""
        message = messages.parse(data)
        if message.HasField("protocol_config"):
            self._request_mode = message.protocol_config.request_body_mode
            self._response_mode = message.protocol_config.response_body_mode
        try:
            match message.WhichOneof("request"):
                case "request_headers":
                    return await self._request_headers(message)
                case "request_body":
                    return await self._request_body(message.request_body.body, message.request_body.end_of_stream)
                case "request_trailers":
                    return await self._request_trailers()
                case "response_headers":
                    return self._response_headers(message)
                case "response_body":
                    return self._response_body(message.response_body.body, message.response_body.end_of_stream)
                case "response_trailers":
                    return [messages.CONTINUE_RESPONSE_TRAILERS]
        except RequestError as error:
            return [messages.immediate(error.status, str(error))]
        return []

    def close(self) -> None:
        """Ends the accounting of the request, if one was routed."""
        if self._assignment:
            self._director.finish(self._assignment)

    async def _request_headers(self, message: ProcessingRequest) -> list[bytes]:
        self._headers = messages.headers_of(message)
        self._subset = messages.subset_of(message)
        if message.request_headers.end_of_stream or self._request_mode in (BodyMode.NONE, BodyMode.STREAMED):
            return [await self._pick(b"", in_body=False)]
        return [] if self._request_mode == BodyMode.FULL_DUPLEX_STREAMED else [messages.CONTINUE_REQUEST_HEADERS]

    async def _request_body(self, chunk: bytes, end_of_stream: bool) -> list[bytes]:
        if self._assignment:
            return [messages.CONTINUE_REQUEST_BODY]
        self._body += chunk
        if len(self._body) > MAX_BODY_BYTES:
            raise RequestError(413, "PayloadTooLarge", f"the request body is larger than {MAX_BODY_BYTES} bytes")
        if self._request_mode == BodyMode.FULL_DUPLEX_STREAMED:
            return await self._pick_and_pass_on(end_of_stream=True) if end_of_stream else []
        return [await self._pick(bytes(self._body), in_body=True)]

    async def _request_trailers(self) -> list[bytes]:
        if self._assignment or self._request_mode != BodyMode.FULL_DUPLEX_STREAMED:
            return [messages.CONTINUE_REQUEST_TRAILERS]
        return [*await self._pick_and_pass_on(end_of_stream=False), messages.CONTINUE_REQUEST_TRAILERS]

    async def _pick_and_pass_on(self, *, end_of_stream: bool) -> list[bytes]:
        headers = await self._pick(bytes(self._body), in_body=False)
        body = self._assignment.intake.body if self._assignment else b""
        return [headers, *messages.streamed_body(body, end_of_stream=end_of_stream, request=True)]

    async def _pick(self, body: bytes, *, in_body: bool) -> bytes:
        assignment = await self._director.assign(self._headers, body, self._subset, self._started_at)
        self._assignment = assignment
        self._body.clear()
        added = {}
        if "x-request-id" not in self._headers:
            added["x-request-id"] = assignment.intake.request.id
        if assignment.intake.changed:
            added["content-length"] = str(len(assignment.intake.body))
        removed = [name for name in REMOVED_HEADERS if name in self._headers]
        changed_body = assignment.intake.body if assignment.intake.changed else None
        return messages.picked(assignment.destination, added, removed, changed_body, in_body=in_body)

    def _response_headers(self, message: ProcessingRequest) -> list[bytes]:
        if not self._assignment:
            return [messages.CONTINUE_RESPONSE_HEADERS]
        headers = messages.headers_of(message)
        status = headers.get(":status", "")
        observe = self._director.response_started(
            self._assignment, int(status) if status.isdigit() else 0, headers.get("content-type", "")
        )
        if observe and self._response_mode == BodyMode.NONE:
            return [_OBSERVE]
        if not observe and self._response_mode == BodyMode.STREAMED:
            return [_IGNORE]
        return [messages.CONTINUE_RESPONSE_HEADERS]

    def _response_body(self, chunk: bytes, end_of_stream: bool) -> list[bytes]:
        if self._assignment:
            self._director.response_chunk(self._assignment, chunk)
        if self._response_mode == BodyMode.FULL_DUPLEX_STREAMED:
            return messages.streamed_body(chunk, end_of_stream=end_of_stream, request=False)
        return [messages.CONTINUE_RESPONSE_BODY]
