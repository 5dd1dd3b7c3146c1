"""Test the conversion of ext_proc messages."""

from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc import messages
from epp.extproc.messages import CHUNK_BYTES, BodyMode
from epp.extproc.protocol.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
)


def library_piece(body: bytes, end_of_stream: bool, request: bool) -> ProcessingResponse:
    streamed = StreamedBodyResponse(body=body, end_of_stream=end_of_stream)
    response = BodyResponse(response=CommonResponse(body_mutation=BodyMutation(streamed_response=streamed)))
    return ProcessingResponse(request_body=response) if request else ProcessingResponse(response_body=response)


sizes = st.one_of(st.integers(0, 300), st.integers(0, 3 * CHUNK_BYTES), st.sampled_from([CHUNK_BYTES, CHUNK_BYTES + 1]))


@given(sizes, st.booleans(), st.booleans())
def test_a_streamed_body_is_encoded_like_protobufs_own_messages(size: int, end: bool, request: bool) -> None:
    body = bytes(i & 0xFF for i in range(size))
    pieces = messages.streamed_body(body, end_of_stream=end, request=request)
    cuts = [body[s : s + CHUNK_BYTES] for s in range(0, max(size, 1), CHUNK_BYTES)]
    expected = [library_piece(cut, end and i == len(cuts) - 1, request) for i, cut in enumerate(cuts)]
    assert [ProcessingResponse.FromString(piece) for piece in pieces] == expected


def hinted(value: Value) -> ProcessingRequest:
    message = ProcessingRequest()
    fields = message.metadata_context.filter_metadata[messages.SUBSET_NAMESPACE].fields
    fields[messages.SUBSET_KEY].CopyFrom(value)
    return message


def test_a_subset_hint_is_a_list_of_addresses_or_a_comma_separated_text() -> None:
    listed = Value()
    listed.list_value.values.extend([Value(string_value="10.0.0.1:80"), Value(string_value="[::1]:80")])
    assert messages.subset_of(hinted(listed)) == frozenset(["10.0.0.1", "::1"])
    assert messages.subset_of(hinted(Value(string_value="10.0.0.1:80, 10.0.0.2"))) == frozenset(
        ["10.0.0.1", "10.0.0.2"]
    )


def test_an_empty_hint_excludes_all_hosts_and_strange_values_are_ignored() -> None:
    empty = Value()
    empty.list_value.SetInParent()
    assert messages.subset_of(hinted(empty)) == frozenset()
    strange = Value()
    strange.list_value.values.extend([Value(number_value=3), Value(string_value="10.0.0.1:80")])
    assert messages.subset_of(hinted(strange)) == frozenset(["10.0.0.1"])
    assert messages.subset_of(ProcessingRequest()) is None


def test_a_changed_body_mode_and_added_headers_are_in_one_answer() -> None:
    answer = ProcessingResponse.FromString(messages.response_headers(BodyMode.STREAMED, {"a": "b"}))
    assert answer.mode_override.response_body_mode == BodyMode.STREAMED
    (option,) = answer.response_headers.response.header_mutation.set_headers
    assert (option.header.key, option.header.raw_value) == ("a", b"b")
    assert ProcessingResponse.FromString(messages.response_headers(None, {})).HasField("response_headers")
