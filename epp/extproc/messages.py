"""Parses Envoy's ext_proc messages, and builds and serialises the picker's answers.

envoy/service/ext_proc/v3/external_processor.proto defines the messages. Constant answers are serialised once.
"""

from collections.abc import Iterable, Mapping

from google.protobuf.struct_pb2 import Struct

from epp.extproc.protocol.base_pb2 import HeaderValue, HeaderValueOption
from epp.extproc.protocol.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from epp.extproc.protocol.processing_mode_pb2 import ProcessingMode
from epp.extproc.rpc import Message
from epp.pool.addresses import host_of
from epp.request.body_pieces import Piece

DESTINATION_HEADER = "x-gateway-destination-endpoint"
LB_NAMESPACE = "envoy.lb"
SERVED_KEY = "x-gateway-destination-endpoint-served"
SCORES_KEY = "x-gateway-destination-endpoint-scores"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
# Largest piece of a body in one answer, a little below Envoy's own gRPC limit for one message.
CHUNK_BYTES = 62_000

_OVERWRITE = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
BodyMode = ProcessingMode.BodySendMode

CONTINUE_REQUEST_HEADERS = ProcessingResponse(request_headers=HeadersResponse()).SerializeToString()
CONTINUE_REQUEST_BODY = ProcessingResponse(request_body=BodyResponse()).SerializeToString()
CONTINUE_RESPONSE_HEADERS = ProcessingResponse(response_headers=HeadersResponse()).SerializeToString()
CONTINUE_RESPONSE_BODY = ProcessingResponse(response_body=BodyResponse()).SerializeToString()
CONTINUE_REQUEST_TRAILERS = ProcessingResponse(request_trailers=TrailersResponse()).SerializeToString()
CONTINUE_RESPONSE_TRAILERS = ProcessingResponse(response_trailers=TrailersResponse()).SerializeToString()


def parse(data: Message) -> ProcessingRequest:
    """Parse one message from Envoy. Raise google.protobuf.message.DecodeError when it is malformed."""
    return ProcessingRequest.FromString(bytes(data))


def large_request_body(data: Message) -> tuple[memoryview, bool] | None:
    """Return the body of a large message and whether it ends there, without copying it; None for other messages.

    request_body (4) > body (1), end_of_stream (2). A message with any other field goes to the general parser.
    """
    if len(data) < _LARGE_BYTES or data[0] != 0x22:
        return None
    size, at = _read_varint(data, 1)
    if at + size != len(data) or data[at] != 0x0A:
        return None
    size, at = _read_varint(data, at + 1)
    end = _END_OF_STREAM.get(bytes(data[at + size :])) if len(data) - at - size <= 2 else None
    return None if end is None else (memoryview(data)[at : at + size], end)


def headers_of(block: HttpHeaders) -> dict[str, str]:
    """Return the headers' values by name. Envoy sends the names in lower case."""
    return {
        header.key: header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        for header in block.headers.headers
    }


def subset_of(message: ProcessingRequest) -> frozenset[str] | None:
    """Return the hosts that the gateway limits the choice to, or None for no limit."""
    if not message.HasField("metadata_context"):
        return None
    hint = message.metadata_context.filter_metadata.get(SUBSET_NAMESPACE)
    if hint is None or SUBSET_KEY not in hint.fields:
        return None
    value = hint.fields[SUBSET_KEY]
    listed = [item.string_value for item in value.list_value.values] or value.string_value.split(",")
    return frozenset(host_of(address.strip()) for address in listed if address.strip())


def serving_address(message: ProcessingRequest) -> str:
    """Return the address that served the request, or "" if the gateway doesn't report it.

    The address is needed because a fallback list may name several.
    """
    if not message.HasField("metadata_context"):
        return ""
    metadata = message.metadata_context.filter_metadata.get(LB_NAMESPACE)
    return metadata.fields[SERVED_KEY].string_value if metadata is not None and SERVED_KEY in metadata.fields else ""


def destination_answer(
    destination: str,
    headers: Mapping[str, str],
    removed: Iterable[str],
    body: bytes | None,
    *,
    scores: Mapping[str, float] | None = None,
    in_body: bool,
) -> bytes:
    """Return the answer that names the endpoint, and replaces the body if `body` is not None.

    `scores`, by address, go to the gateway in the dynamic metadata. `in_body` makes this the answer to the body,
    for a gateway that holds the headers back until then.
    """
    common = CommonResponse(
        header_mutation=HeaderMutation(
            set_headers=[_set(DESTINATION_HEADER, destination), *(_set(*pair) for pair in headers.items())],
            remove_headers=removed,
        ),
        clear_route_cache=True,
    )
    if body is not None and in_body:
        common.body_mutation.body = body
    answer = ProcessingResponse(dynamic_metadata=_destination_metadata(destination, scores))
    if in_body:
        answer.request_body.response.CopyFrom(common)
    else:
        answer.request_headers.response.CopyFrom(common)
    return answer.SerializeToString()


def streamed_body(body: Piece, *, end_of_stream: bool, request: bool) -> list[bytes]:
    """Return a body as one or more answers, each within Envoy's limit."""
    size = len(body)
    if size <= CHUNK_BYTES:
        return [_piece(body, end_of_stream, request)]
    starts = range(0, size, CHUNK_BYTES)
    return [_piece(body[s : s + CHUNK_BYTES], end_of_stream and s + CHUNK_BYTES >= size, request) for s in starts]


def replaced_body(body: bytes) -> bytes:
    """Return the answer that replaces a piece of a STREAMED body with `body`."""
    response = CommonResponse(body_mutation=BodyMutation(body=body))
    return ProcessingResponse(response_body=BodyResponse(response=response)).SerializeToString()


def response_headers(body_mode: "BodyMode | None", headers: Mapping[str, str]) -> bytes:
    """Return the answer to response headers. `body_mode` changes how Envoy sends the body, if Envoy allows it."""
    if not headers and body_mode in _RESPONSE_HEADERS:
        return _RESPONSE_HEADERS[body_mode]
    answer = ProcessingResponse(response_headers=HeadersResponse())
    for name, value in headers.items():
        answer.response_headers.response.header_mutation.set_headers.append(_set(name, value))
    if body_mode is not None:
        answer.mode_override.response_body_mode = body_mode
    return answer.SerializeToString()


def immediate(status: int, text: str, headers: Mapping[str, str]) -> bytes:
    """Return an answer that Envoy sends to the client instead of asking a model server."""
    listed = [_set(*pair) for pair in headers.items()]
    answer = ProcessingResponse(
        immediate_response=ImmediateResponse(
            status={"code": status},
            headers=HeaderMutation(set_headers=listed),
            body=text.encode(),
            details="endpoint_picker_refused",
        )
    )
    return answer.SerializeToString()


def _set(key: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=key, raw_value=value.encode()), append_action=_OVERWRITE)


def _destination_metadata(destination: str, scores: Mapping[str, float] | None) -> Struct:
    metadata = Struct()
    fields = metadata.fields[LB_NAMESPACE].struct_value.fields
    fields[DESTINATION_HEADER].string_value = destination
    for address, score in (scores or {}).items():
        fields[SCORES_KEY].struct_value.fields[address].number_value = score
    return metadata


def _piece(body: Piece, end_of_stream: bool, request: bool) -> bytes:
    """Return one StreamedBodyResponse. It is encoded by hand for speed, once per chunk of every body handed back.

    request_body (3) or response_body (4) > response (1) > body_mutation (3) > streamed_response (3) > body (1),
    end_of_stream (2). Empty fields are left out, as in proto3.
    """
    inner = (b"\x0a", _varint(len(body)), body) if body else ()
    end = b"\x10\x01" if end_of_stream else b""
    size = sum(map(len, inner)) + len(end)
    heads = []
    for tag in (b"\x1a", b"\x1a", b"\x0a", b"\x1a" if request else b"\x22"):
        head = tag + _varint(size)
        heads.append(head)
        size += len(head)
    return b"".join((*reversed(heads), *inner, end))


def _read_varint(data: Message, at: int) -> tuple[int, int]:
    """Return the number of at most five bytes at `at`, and the place after it."""
    value = 0
    for shift in range(0, 35, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _BYTES[value]
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


# Messages of this size or more are request bodies, which the general parser would copy twice.
_LARGE_BYTES = 1 << 18
_END_OF_STREAM = {b"": False, b"\x10\x00": False, b"\x10\x01": True}
_BYTES = tuple(bytes((value,)) for value in range(0x80))
_RESPONSE_HEADERS: dict[int | None, bytes] = {
    None: CONTINUE_RESPONSE_HEADERS,
    **{
        mode: ProcessingResponse(
            response_headers=HeadersResponse(), mode_override=ProcessingMode(response_body_mode=mode)
        ).SerializeToString()
        for mode in (BodyMode.NONE, BodyMode.STREAMED)
    },
}
