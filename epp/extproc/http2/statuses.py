"""The header blocks of gRPC answers: their beginning, their status, and both in one.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from typing import Final
from urllib.parse import quote

from epp.extproc.http2.headers import write_headers
from epp.extproc.rpc import StatusCode

FAILED: Final = "the server failed; its log says why"
ANSWER_HEADERS: Final = write_headers(
    [(":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity")]
)
_OK: Final = write_headers([("grpc-status", "0")])
_UNESCAPED: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"


def trailers(status: StatusCode, text: str) -> bytes:
    """Return the block that ends an answer."""
    if not status:
        return _OK
    return write_headers([("grpc-status", str(int(status))), ("grpc-message", quote(text, safe=_UNESCAPED))])


def trailers_only(status: StatusCode, text: str) -> bytes:
    """Return the block of an answer without messages."""
    return ANSWER_HEADERS + trailers(status, text)
