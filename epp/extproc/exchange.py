"""The ext_proc exchange for one HTTP request, without a transport: a message's bytes in, answers' bytes out.

Envoy's first message says how Envoy sends bodies:

- FULL_DUPLEX_STREAMED (gateways): the picker answers when the request's body has ended or is larger than it reads, and
  hands every body back.
- BUFFERED, BUFFERED_PARTIAL: the picker lets the headers through at once, while Envoy holds them back. The answer to
  the buffered body carries the choice.
- STREAMED, NONE: the headers alone decide.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Final

from epp.exceptions import RequestError, TooLargeError
from epp.extproc import messages
from epp.extproc.messages import BodyMode
from epp.extproc.protocol.external_processor_pb2 import ProcessingRequest
from epp.extproc.rpc import Message, RpcError, StatusCode
from epp.extproc.visibility import Visibility
from epp.request import body_pieces, openai
from epp.request import headers as request_headers
from epp.request.body_pieces import Piece
from epp.request.director import Director
from epp.request.large_bodies import TAIL_BYTES, ReceivedBody
from epp.request.overload import Overload
from epp.request.parsed import ParsedRequest, RequestReader
from epp.request.refusal_body import refusal_body
from epp.request.response import ResponseBody
from epp.request.routed import RoutedRequest
from epp.request.try_timeout import NO_TRY_TIMEOUT, TryTimeout

logger = logging.getLogger("headroom.epp.extproc")

MAX_BODY_BYTES: Final = 64 << 20

Answers = list[bytes]
_NO_BODY: Final = ReceivedBody(b"", 0)


class Exchange:
    """The state machine of one stream, which carries one request. `overload` is that of its client.

    Pass every message of a stream to `receive` in order. Call `settle` when the answers are sent, and `close` when the
    stream ends, however it ends.
    """

    __slots__ = (
        "_arrived_s",
        "_body",
        "_body_bytes",
        "_closed",
        "_director",
        "_headers",
        "_heeds_subset",
        "_later",
        "_overload",
        "_reader",
        "_request_mode",
        "_response",
        "_response_mode",
        "_routed",
        "_subset",
        "_traceparent",
        "_try_timeout",
        "_visibility",
        "_waited_s",
    )

    def __init__(
        self,
        reader: RequestReader,
        director: Director,
        visibility: Visibility,
        overload: Overload,
        *,
        try_timeout: TryTimeout = NO_TRY_TIMEOUT,
        heeds_subset: bool = True,
    ) -> None:
        self._reader = reader
        self._director = director
        self._visibility = visibility
        self._overload = overload
        self._try_timeout = try_timeout
        self._heeds_subset = heeds_subset
        self._arrived_s = director.clock()
        self._headers: dict[str, str] = {}
        self._traceparent = ""
        self._subset: frozenset[str] | None = None
        self._body: list[Piece] = []
        self._body_bytes = 0
        self._routed: RoutedRequest | None = None
        self._response: ResponseBody | None = None
        self._closed = False
        # How long the present message waited to be looked at.
        self._waited_s = 0.0
        # The accounting of the last answer, until `settle` does it.
        self._later: Callable[[], None] | None = None
        self._request_mode: int = BodyMode.FULL_DUPLEX_STREAMED
        self._response_mode: int = BodyMode.FULL_DUPLEX_STREAMED

    def begin_within(self, traceparent: str) -> None:
        """Continue the gateway's own span, which the call's metadata name, and not the span of the client."""
        if self._director.tracing:
            self._traceparent = traceparent

    def receive(self, data: Message, waited_s: float = 0.0) -> Answers | Awaitable[Answers]:
        """Return the answers to one message, at once or when the endpoint is known.

        Return no answers while more of the request is needed. `waited_s` is how long the message waited in the front.
        RpcError gives the request back to the gateway, which goes on as if there were no picker.
        """
        self.settle()
        self._waited_s = waited_s
        if body := messages.large_request_body(data):
            return self._request_body(*body)
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

    @property
    def has_request(self) -> bool:
        return bool(self._headers)

    @property
    def held_bytes(self) -> int:
        return self._body_bytes if self._body else 0

    def settle(self) -> None:
        """Do the accounting of the last answer, unless it is done. The next message does it at the latest."""
        later, self._later = self._later, None
        if later:
            try:
                later()
            except Exception:
                logger.exception("the accounting of a served request failed")

    def close(self) -> None:
        """End the accounting of the request, if it was routed or still will be."""
        self._closed = True
        routed, response = self._routed, self._response
        if routed is None:
            return
        self.settle()
        if response is not None:
            _tell_usage(routed, response)
        size_bytes = response.size_bytes if response is not None and response.is_whole else None
        routed.ended(self._director.clock(), size_bytes)

    @property
    def _is_full_duplex(self) -> bool:
        return self._request_mode == BodyMode.FULL_DUPLEX_STREAMED

    def _give_up_if_late(self) -> None:
        if self._overload.gives_up(self._waited_s, holds_body=self._is_full_duplex):
            raise RpcError(StatusCode.UNAVAILABLE, "the picker is overloaded")

    def _request_headers(self, message: ProcessingRequest) -> Answers | Awaitable[Answers]:
        self._give_up_if_late()
        self._headers = messages.headers_of(message.request_headers)
        if self._traceparent:
            self._headers[request_headers.TRACEPARENT] = self._traceparent
        self._subset = messages.subset_of(message) if self._heeds_subset else None
        if message.request_headers.end_of_stream or self._request_mode in (BodyMode.NONE, BodyMode.STREAMED):
            return self._pick(_NO_BODY, self._picked_in_headers)
        if not self._is_full_duplex:
            return [messages.CONTINUE_REQUEST_HEADERS]
        # Don't wait for a body that the picker can't read.
        return [] if openai.is_read(self._headers.get(":path", "")) else self._pick(_NO_BODY, self._picked_in_headers)

    def _request_body(self, chunk: Piece, end_of_stream: bool) -> Answers | Awaitable[Answers]:
        self._body_bytes += len(chunk)
        if self._body_bytes > MAX_BODY_BYTES:
            self._body.clear()
            return self._refused(TooLargeError(f"the request body is larger than {MAX_BODY_BYTES} bytes"))
        if self._routed:
            return self._pass_on(chunk, end_of_stream)
        body_pieces.add(self._body, chunk)
        if not self._is_full_duplex:
            is_cut = self._request_mode == BodyMode.BUFFERED_PARTIAL and not end_of_stream
            return self._pick(_NO_BODY if is_cut else self._received(), self._picked_in_body)
        if end_of_stream:
            return self._pick(self._received(), self._picked_with_body)
        if self._body_bytes > self._reader.most_bytes and not self._is_rewritten:
            return self._pick(self._received_so_far(), self._picked_before_the_rest)
        return []

    def _request_trailers(self) -> Answers | Awaitable[Answers]:
        if self._routed or not self._is_full_duplex:
            return [messages.CONTINUE_REQUEST_TRAILERS]
        return self._pick(self._received(), self._picked_before_trailers)

    def _pass_on(self, chunk: Piece, end_of_stream: bool) -> Answers:
        if self._is_full_duplex:
            return messages.streamed_body(chunk, end_of_stream=end_of_stream, request=True)
        return [messages.CONTINUE_REQUEST_BODY]

    @property
    def _is_rewritten(self) -> bool:
        """Whether the model's name may have to be replaced, wherever in the body it stands."""
        return request_headers.first(self._headers, request_headers.REWRITE) is not None

    def _received(self) -> ReceivedBody:
        """Return the body that has come whole."""
        lead = body_pieces.leading(self._body, self._reader.most_bytes)
        if len(lead) == self._body_bytes:
            # Keep one copy, which is also cut into fewer answers.
            self._body = [lead]
            return ReceivedBody.whole(lead)
        return ReceivedBody(lead, self._body_bytes, body_pieces.trailing(self._body, TAIL_BYTES))

    def _received_so_far(self) -> ReceivedBody:
        """Return the body that is still coming, with the size that its header announces."""
        lead = body_pieces.leading(self._body, self._reader.most_bytes)
        return ReceivedBody(lead, max(self._body_bytes, request_headers.content_length(self._headers)))

    def _take_body(self, routed: RoutedRequest) -> list[Piece]:
        """Return the body's pieces as they go on, and keep none."""
        pieces, self._body = self._body, []
        rewrite = routed.parsed.rewrite
        return rewrite.apply(pieces) if rewrite else pieces

    def _pick(self, body: ReceivedBody, answer: Callable[[RoutedRequest], Answers]) -> Answers | Awaitable[Answers]:
        """Have the director pick an endpoint, and answer with it."""
        self._give_up_if_late()
        try:
            parsed = self._reader.read(self._headers, body, self._director.scheduler.prefix)
            found = self._route(parsed) if isinstance(parsed, ParsedRequest) else self._route_later(parsed)
        except Exception as error:
            return self._refused(error)
        return self._answer(found, answer) if isinstance(found, RoutedRequest) else self._answer_later(found, answer)

    def _route(self, parsed: ParsedRequest) -> RoutedRequest | Awaitable[RoutedRequest]:
        level = self._overload.pick(self._waited_s)
        return self._director.route(parsed, self._subset, self._arrived_s, level)

    async def _route_later(self, parsed: Awaitable[ParsedRequest]) -> RoutedRequest:
        found = self._route(await parsed)
        return found if isinstance(found, RoutedRequest) else await found

    async def _answer_later(
        self, found: Awaitable[RoutedRequest], answer: Callable[[RoutedRequest], Answers]
    ) -> Answers:
        try:
            routed = await found
        except Exception as error:
            return self._refused(error)
        return self._answer(routed, answer)

    def _answer(self, routed: RoutedRequest, answer: Callable[[RoutedRequest], Answers]) -> Answers:
        self._routed = routed
        self._later = routed.record_decision
        if self._closed:
            self.close()
        return answer(routed)

    def _refused(self, error: Exception) -> Answers:
        """Answer a client whose request can't be routed. Log an unexpected error."""
        if not isinstance(error, RequestError):
            logger.error("a request could not be routed", exc_info=error)
            error = RequestError(500, "Internal", "the endpoint picker failed; its log says why")
        self._director.books.outcomes.refused(error)
        content_type, text = refusal_body(error, self._headers.get(":path", ""))
        return [messages.immediate(error.status, text, {"content-type": content_type, **error.headers})]

    def _picked_in_headers(self, routed: RoutedRequest) -> Answers:
        return [self._picked(routed, in_body=False)]

    def _picked_in_body(self, routed: RoutedRequest) -> Answers:
        body = self._take_body(routed)
        return [self._picked(routed, in_body=True, changed_body=b"".join(body) if routed.parsed.rewrite else None)]

    def _picked_with_body(self, routed: RoutedRequest) -> Answers:
        return [self._picked(routed, in_body=False), *self._handed_back(routed, end_of_stream=True)]

    def _picked_before_the_rest(self, routed: RoutedRequest) -> Answers:
        return [self._picked(routed, in_body=False), *self._handed_back(routed, end_of_stream=False)]

    def _picked_before_trailers(self, routed: RoutedRequest) -> Answers:
        return [*self._picked_before_the_rest(routed), messages.CONTINUE_REQUEST_TRAILERS]

    def _handed_back(self, routed: RoutedRequest, *, end_of_stream: bool) -> Iterator[bytes]:
        *pieces, last = self._take_body(routed) or [b""]
        for piece in pieces:
            yield from messages.streamed_body(piece, end_of_stream=False, request=True)
        yield from messages.streamed_body(last, end_of_stream=end_of_stream, request=True)

    def _picked(self, routed: RoutedRequest, *, in_body: bool, changed_body: bytes | None = None) -> bytes:
        parsed, headers = routed.parsed, self._headers
        added = dict(routed.span.headers) if routed.span else {}
        if request_headers.REQUEST_ID not in headers:
            added[request_headers.REQUEST_ID] = parsed.request.id
        added |= self._try_timeout.headers(routed)
        if parsed.rewrite:
            added["content-length"] = str(parsed.body_bytes + parsed.rewrite.added_bytes)
        removed = [name for name in request_headers.REMOVED if name in headers]
        scores = self._visibility.scores_by_address(routed)
        return messages.destination_answer(
            routed.destination, added, removed, changed_body, scores=scores, in_body=in_body
        )

    def _response_headers(self, message: ProcessingRequest) -> Answers:
        routed = self._routed
        if routed is None:
            return [messages.CONTINUE_RESPONSE_HEADERS]
        headers = messages.headers_of(message.response_headers)
        served = messages.serving_address(message)
        if served:
            routed.served_by(served)
        is_stream = "text/event-stream" in headers.get("content-type", "")
        is_observed = routed.response_started(_status_of(headers), is_stream=is_stream, now_s=self._director.clock())
        self._response = ResponseBody(is_stream=is_stream, is_observed=is_observed)
        added = {**self._visibility.headers(routed), **routed.record.decision.response_headers}
        return [messages.response_headers(self._response_body_mode(is_observed), added)]

    def _response_body_mode(self, is_observed: bool) -> "BodyMode | None":
        """Return the mode that Envoy must switch to for the body, or None to keep the present one."""
        if is_observed and self._response_mode == BodyMode.NONE:
            return BodyMode.STREAMED
        if not is_observed and self._response_mode == BodyMode.STREAMED:
            return BodyMode.NONE
        return None

    def _response_body(self, chunk: bytes, end_of_stream: bool) -> Answers:
        shown, routed, response = chunk, self._routed, self._response
        if routed is not None and response is not None:
            self._later = partial(_take_in, routed, response, chunk, end_of_stream, self._director.clock())
            if self._visibility.in_usage and response.is_stream:
                self.settle()
                _tell_usage(routed, response)
                shown = self._visibility.body(routed, chunk)
        if self._response_mode == BodyMode.FULL_DUPLEX_STREAMED:
            return messages.streamed_body(shown, end_of_stream=end_of_stream, request=False)
        return [messages.CONTINUE_RESPONSE_BODY if shown is chunk else messages.replaced_body(shown)]


def _status_of(headers: Mapping[str, str]) -> int:
    """Return the response's HTTP status, or 0 if it is missing or not three digits."""
    status = headers.get(":status", "")
    return int(status) if len(status) == 3 and status.isascii() and status.isdigit() else 0


def _take_in(routed: RoutedRequest, response: ResponseBody, chunk: bytes, end_of_stream: bool, now_s: float) -> None:
    """Count the output tokens that a chunk completes. `now_s` is the time when the chunk arrived."""
    stream = response.stream
    if stream is None:
        response.feed(chunk, end_of_stream)
        return
    ended = stream.ended_choices
    tokens = response.feed(chunk, end_of_stream)
    routed.tokens_came(tokens, now_s, stream.other_tokens - routed.other_tokens, is_exact=stream.is_exact)
    if stream.ended_choices > ended:
        routed.choice_ended(now_s)
    if response.is_complete is not None:
        routed.stream_ended(is_complete=response.is_complete)


def _tell_usage(routed: RoutedRequest, response: ResponseBody) -> None:
    usage = response.usage
    if usage is not None:
        routed.tokens_counted(usage.prompt, usage.output)
