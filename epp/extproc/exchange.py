"""The ext_proc exchange for one HTTP request, knowing no transport: a message's bytes in, answers' bytes out.

Envoy's first message says how it sends bodies. In the modes of a gateway (FULL_DUPLEX_STREAMED) nothing is answered
until the request's body has ended, and every body is handed back. In a standalone Envoy's cheaper modes the headers
are let through at once while Envoy holds them back, and the answer to the buffered body carries the choice; where the
body streams past (STREAMED) or isn't sent at all, the headers alone decide.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from epp.exceptions import RequestError
from epp.extproc import messages
from epp.extproc.messages import BodyMode
from epp.extproc.protocol.external_processor_pb2 import ProcessingRequest
from epp.extproc.visibility import Visibility
from epp.request import headers as request_headers
from epp.request import openai
from epp.request.director import Director
from epp.request.response import Responses
from epp.request.routed import Assignment

logger = logging.getLogger("headroom.epp.extproc")

MAX_BODY_BYTES: Final = 64 << 20

Answers = list[bytes]


class Exchange:
    """Feed it every message of a stream in order, settle it when the answers are sent, and close it when the stream
    ends, however it ends.
    """

    __slots__ = (
        "_assignment",
        "_body",
        "_body_bytes",
        "_closed",
        "_director",
        "_headers",
        "_heeds_subset",
        "_later",
        "_request_mode",
        "_response_mode",
        "_responses",
        "_started_at",
        "_subset",
        "_visibility",
    )

    def __init__(
        self, director: Director, responses: Responses, visibility: Visibility, *, heeds_subset: bool = True
    ) -> None:
        self._director = director
        self._responses = responses
        self._visibility = visibility
        self._heeds_subset = heeds_subset
        self._started_at = director.clock()
        self._assignment: Assignment | None = None
        self._headers: dict[str, str] = {}
        self._subset: frozenset[str] | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._closed = False
        # Accounting for what was answered last.
        self._later: Callable[[], None] | None = None
        self._request_mode: int = BodyMode.FULL_DUPLEX_STREAMED
        self._response_mode: int = BodyMode.FULL_DUPLEX_STREAMED

    def receive(self, data: bytes) -> Answers | Awaitable[Answers]:
        """The answers to one message, at once or when the endpoint is known; none while more is needed."""
        self.settle()
        message = messages.parse(data)
        if message.HasField("protocol_config"):
            self._request_mode = message.protocol_config.request_body_mode
            self._response_mode = message.protocol_config.response_body_mode
        match message.WhichOneof("request"):
            case "response_body":
                return self._response_body(message.response_body.body, message.response_body.end_of_stream)
            case "request_headers":
                return self._request_headers(message)
            case "request_body":
                return self._request_body(message.request_body.body, message.request_body.end_of_stream)
            case "response_headers":
                return self._response_headers(message)
            case "request_trailers":
                return self._request_trailers()
            case "response_trailers":
                return [messages.CONTINUE_RESPONSE_TRAILERS]
        return []

    def settle(self) -> None:
        """Accounts for what was answered last, unless that is done; the next message does it at the latest."""
        later, self._later = self._later, None
        if later:
            try:
                later()
            except Exception:
                logger.exception("a request was served and not accounted for")

    def close(self) -> None:
        """Ends the accounting of the request, if one was routed or still will be."""
        self._closed = True
        if self._assignment:
            self.settle()
            self._responses.finish(self._assignment)

    @property
    def _is_full_duplex(self) -> bool:
        return self._request_mode == BodyMode.FULL_DUPLEX_STREAMED

    def _request_headers(self, message: ProcessingRequest) -> Answers | Awaitable[Answers]:
        self._headers = messages.headers_of(message.request_headers)
        self._subset = messages.subset_of(message) if self._heeds_subset else None
        if message.request_headers.end_of_stream or self._request_mode in (BodyMode.NONE, BodyMode.STREAMED):
            return self._pick(b"", self._picked_in_headers)
        if not self._is_full_duplex:
            return [messages.CONTINUE_REQUEST_HEADERS]
        # A body that nobody here understands need not be waited for.
        return [] if openai.is_read(self._headers.get(":path", "")) else self._pick(b"", self._picked_in_headers)

    def _request_body(self, chunk: bytes, end_of_stream: bool) -> Answers | Awaitable[Answers]:
        if self._assignment:
            return self._pass_on(chunk, end_of_stream)
        self._body.append(chunk)
        self._body_bytes += len(chunk)
        if self._body_bytes > MAX_BODY_BYTES:
            self._body.clear()
            text = f"the request body is larger than {MAX_BODY_BYTES} bytes"
            return self._refused(RequestError(413, "PayloadTooLarge", text))
        if not self._is_full_duplex:
            is_cut = self._request_mode == BodyMode.BUFFERED_PARTIAL and not end_of_stream
            return self._pick(b"" if is_cut else self._take_body(), self._picked_in_body)
        return self._pick(self._take_body(), self._picked_with_body) if end_of_stream else []

    def _request_trailers(self) -> Answers | Awaitable[Answers]:
        if self._assignment or not self._is_full_duplex:
            return [messages.CONTINUE_REQUEST_TRAILERS]
        return self._pick(self._take_body(), self._picked_before_trailers)

    def _pass_on(self, chunk: bytes, end_of_stream: bool) -> Answers:
        if self._is_full_duplex:
            return messages.streamed_body(chunk, end_of_stream=end_of_stream, request=True)
        return [messages.CONTINUE_REQUEST_BODY]

    def _take_body(self) -> bytes:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        return body

    def _pick(self, body: bytes, answer: Callable[[Assignment], Answers]) -> Answers | Awaitable[Answers]:
        """Has the endpoint picked, and answers with it."""
        try:
            found = self._director.assign(self._headers, body, self._subset, self._started_at)
        except Exception as error:
            return self._refused(error)
        return self._assigned(found, answer) if isinstance(found, Assignment) else self._pick_later(found, answer)

    async def _pick_later(self, found: Awaitable[Assignment], answer: Callable[[Assignment], Answers]) -> Answers:
        try:
            assignment = await found
        except Exception as error:
            return self._refused(error)
        return self._assigned(assignment, answer)

    def _assigned(self, assignment: Assignment, answer: Callable[[Assignment], Answers]) -> Answers:
        self._assignment = assignment
        self._later = partial(self._director.account, assignment)
        if self._closed:
            self.close()
        return answer(assignment)

    def _refused(self, error: Exception) -> Answers:
        """The answer to the client for a request that can't be routed; what nobody foresaw is logged."""
        if not isinstance(error, RequestError):
            logger.error("a request could not be routed", exc_info=error)
            error = RequestError(500, "Internal", "the endpoint picker failed; its log says why")
        self._director.metrics.refusals.labels(error.code).inc()
        return [messages.immediate(error.status, str(error), error.headers)]

    def _picked_in_headers(self, assignment: Assignment) -> Answers:
        return [self._picked(assignment, in_body=False)]

    def _picked_in_body(self, assignment: Assignment) -> Answers:
        return [self._picked(assignment, in_body=True)]

    def _picked_with_body(self, assignment: Assignment) -> Answers:
        body = messages.streamed_body(assignment.intake.body, end_of_stream=True, request=True)
        return [self._picked(assignment, in_body=False), *body]

    def _picked_before_trailers(self, assignment: Assignment) -> Answers:
        body = messages.streamed_body(assignment.intake.body, end_of_stream=False, request=True)
        return [self._picked(assignment, in_body=False), *body, messages.CONTINUE_REQUEST_TRAILERS]

    def _picked(self, assignment: Assignment, *, in_body: bool) -> bytes:
        intake, headers = assignment.intake, self._headers
        added = dict(assignment.trace_headers or ())
        if request_headers.REQUEST_ID not in headers:
            added[request_headers.REQUEST_ID] = intake.request.id
        if intake.changed:
            added["content-length"] = str(len(intake.body))
        removed = [name for name in request_headers.REMOVED if name in headers]
        changed_body = intake.body if intake.changed else None
        scores = self._visibility.scores_by_address(assignment)
        return messages.picked(assignment.destination, added, removed, changed_body, scores=scores, in_body=in_body)

    def _response_headers(self, message: ProcessingRequest) -> Answers:
        assignment = self._assignment
        if assignment is None:
            return [messages.CONTINUE_RESPONSE_HEADERS]
        headers = messages.headers_of(message.response_headers)
        status = headers.get(":status", "")
        served = messages.served_of(message)
        if served:
            self._responses.served_by(assignment, served)
        is_observed = self._responses.started(
            assignment, int(status) if status.isdigit() else 0, headers.get("content-type", "")
        )
        added = {**self._visibility.headers(assignment), **assignment.record.decision.response_headers}
        return [messages.response_headers(self._response_body_mode(is_observed), added)]

    def _response_body_mode(self, is_observed: bool) -> "BodyMode | None":
        """The mode that the body shall be sent in, where it isn't the one that it would be sent in anyway."""
        if is_observed and self._response_mode == BodyMode.NONE:
            return BodyMode.STREAMED
        if not is_observed and self._response_mode == BodyMode.STREAMED:
            return BodyMode.NONE
        return None

    def _response_body(self, chunk: bytes, end_of_stream: bool) -> Answers:
        shown = chunk
        if self._assignment:
            self._later = partial(self._responses.chunk, self._assignment, chunk, end_of_stream, self._director.clock())
            if self._visibility.in_usage:
                self.settle()
                shown = self._visibility.body(self._assignment, chunk)
        if self._response_mode == BodyMode.FULL_DUPLEX_STREAMED:
            return messages.streamed_body(shown, end_of_stream=end_of_stream, request=False)
        return [messages.CONTINUE_RESPONSE_BODY if shown is chunk else messages.replaced_body(shown)]
