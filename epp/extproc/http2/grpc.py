"""Chooses what serves a gRPC request by its headers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import asyncio
import logging
from typing import Any, Final

from epp.extproc.http2.budget import Flood
from epp.extproc.http2.connection import Connection
from epp.extproc.http2.exchange_stream import ExchangeStream
from epp.extproc.http2.headers import HeaderBlock, write_headers
from epp.extproc.http2.message_stream import MessageStream
from epp.extproc.http2.method_stream import MethodStream
from epp.extproc.http2.statuses import FAILED, trailers_only
from epp.extproc.http2.stream import Stream
from epp.extproc.rpc import Services, StatusCode

logger = logging.getLogger("headroom.epp.extproc")

_WRONG_METHOD: Final = write_headers([(":status", "405"), ("allow", "POST")])
_WRONG_CONTENT: Final = write_headers([(":status", "415")])


def new_stream(
    services: Services, tasks: set[asyncio.Future[Any]], connection: Connection, stream_id: int, headers: HeaderBlock
) -> Stream:
    """Return the stream that serves a request. `tasks` collects the tasks that run for streams."""
    if headers.method != "POST":
        return RefusedStream(connection, stream_id, _WRONG_METHOD)
    if not _is_grpc(headers.content_type):
        return RefusedStream(connection, stream_id, _WRONG_CONTENT)
    if new_exchange := services.exchanges.get(headers.path):
        try:
            exchange = new_exchange(connection)
            if headers.traceparent:
                exchange.begin_within(headers.traceparent)
        except Exception:
            logger.exception("can't create an exchange")
            return RefusedStream(connection, stream_id, trailers_only(StatusCode.INTERNAL, FAILED))
        stream: MessageStream = ExchangeStream(connection, stream_id, services, tasks, exchange)
    elif method := services.methods.get(headers.path):
        stream = MethodStream(connection, stream_id, services, tasks, method)
    else:
        text = f"{headers.path} is not served here"
        return RefusedStream(connection, stream_id, trailers_only(StatusCode.UNIMPLEMENTED, text))
    if headers.timeout_s is not None:
        stream.end_after(headers.timeout_s)
    return stream


def _is_grpc(content_type: str) -> bool:
    return content_type == "application/grpc" or content_type.startswith(("application/grpc+", "application/grpc;"))


class RefusedStream(Stream):
    """Answers the request's headers with a refusal, and ignores the rest."""

    __slots__ = ("_block", "_connection")

    def __init__(self, connection: Connection, stream_id: int, block: bytes) -> None:
        super().__init__(stream_id)
        self._connection = connection
        self._block = block

    def opened(self) -> None:
        self._connection.control_budget.spend(Flood.UNSERVED_REQUEST)
        self._connection.outbox.end(self, self._block)
