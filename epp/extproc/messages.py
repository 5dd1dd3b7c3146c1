"""Envoy's ext_proc messages, built and serialised: what the picker answers.

The messages are those of envoy/service/ext_proc/v3/external_processor.proto. Answers that never vary are serialised
once.
"""

from collections.abc import Iterable, Mapping

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.protobuf.struct_pb2 import Struct

DESTINATION_HEADER = "x-gateway-destination-endpoint"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
# Above this Envoy's own gRPC limit for one message comes near.
CHUNK_BYTES = 62_000

BodyMode = ProcessingMode.BodySendMode

CONTINUE_REQUEST_HEADERS = ProcessingResponse(request_headers=HeadersResponse()).SerializeToString()
CONTINUE_REQUEST_BODY = ProcessingResponse(request_body=BodyResponse()).SerializeToString()
CONTINUE_RESPONSE_HEADERS = ProcessingResponse(response_headers=HeadersResponse()).SerializeToString()
CONTINUE_RESPONSE_BODY = ProcessingResponse(response_body=BodyResponse()).SerializeToString()
CONTINUE_REQUEST_TRAILERS = ProcessingResponse(request_trailers=TrailersResponse()).SerializeToString()
CONTINUE_RESPONSE_TRAILERS = ProcessingResponse(response_trailers=TrailersResponse()).SerializeToString()


def parse(data: bytes) -> ProcessingRequest:
    """One message from Envoy; google.protobuf.message.DecodeError when it is none."""
    return ProcessingRequest.FromString(data)


def headers_of(message: ProcessingRequest) -> dict[str, str]:
    """Header names, which Envoy sends in lower case, and values of a headers message."""
    block = message.request_headers if message.HasField("request_headers") else message.response_headers
    return {
        header.key: header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        for header in block.headers.headers
    }


def subset_of(message: ProcessingRequest) -> frozenset[str] | None:
    """The IPs that the gateway limits the choice to; None when it doesn't."""
    hint = message.metadata_context.filter_metadata.get(SUBSET_NAMESPACE)
    if hint is None or SUBSET_KEY not in hint.fields:
        return None
    value = hint.fields[SUBSET_KEY]
    listed = [item.string_value for item in value.list_value.values] or value.string_value.split(",")
    return frozenset(address.strip().partition(":")[0] for address in listed if address.strip())


def picked(
    destination: str, headers: Mapping[str, str], removed: Iterable[str], body: bytes | None, *, in_body: bool
) -> bytes:
    """The answer that names the endpoint, and replaces the body when there is a new one.

    `in_body` puts it into the answer to the body, for a gateway that holds the headers back until then.
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
    answer = ProcessingResponse(dynamic_metadata=_destination_metadata(destination))
    if in_body:
        answer.request_body.response.CopyFrom(common)
    else:
        answer.request_headers.response.CopyFrom(common)
    data: bytes = answer.SerializeToString()
    return data


def streamed_body(body: bytes, *, end_of_stream: bool, request: bool) -> list[bytes]:
    """A body sent on in pieces that Envoy takes; at least one piece."""
    starts = range(0, max(len(body), 1), CHUNK_BYTES)
    return [_piece(body[s : s + CHUNK_BYTES], end_of_stream and s + CHUNK_BYTES >= len(body), request) for s in starts]


def continue_with_body_mode(mode: int) -> bytes:
    """The answer to response headers that changes how Envoy sends the body, where it allows that."""
    answer = ProcessingResponse(
        response_headers=HeadersResponse(), mode_override=ProcessingMode(response_body_mode=mode)
    )
    data: bytes = answer.SerializeToString()
    return data


def immediate(status: int, text: str) -> bytes:
    """An answer to the client in the model server's stead."""
    answer = ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=HttpStatus(code=status),
            headers=HeaderMutation(set_headers=[_set("content-type", "text/plain")]),
            body=text.encode(),
        )
    )
    data: bytes = answer.SerializeToString()
    return data


def _set(key: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=key, raw_value=value.encode()))


def _destination_metadata(destination: str) -> Struct:
    metadata = Struct()
    metadata.fields["envoy.lb"].struct_value.fields[DESTINATION_HEADER].string_value = destination
    return metadata


def _piece(body: bytes, end_of_stream: bool, request: bool) -> bytes:
    mutation = BodyMutation(streamed_response=StreamedBodyResponse(body=body, end_of_stream=end_of_stream))
    response = BodyResponse(response=CommonResponse(body_mutation=mutation))
    answer = ProcessingResponse(request_body=response) if request else ProcessingResponse(response_body=response)
    data: bytes = answer.SerializeToString()
    return data
