"""Test that the picker's copies of Envoy's .proto files agree with Envoy's own."""

import mmap
from collections.abc import Iterable, Iterator

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto
from google.protobuf.internal import api_implementation

from epp.extproc.protocol import base_pb2, external_processor_pb2, http_status_pb2, processing_mode_pb2
from headroom.gateway import envoy

# Modules by the path of Envoy's own file.
MODULES = {
    "envoy/service/ext_proc/v3/external_processor.proto": external_processor_pb2,
    "envoy/extensions/filters/http/ext_proc/v3/processing_mode.proto": processing_mode_pb2,
    "envoy/config/core/v3/base.proto": base_pb2,
    "envoy/type/v3/http_status.proto": http_status_pb2,
}
# A file's description begins with its path and its package, and ends with its syntax.
PATH, PACKAGE, SYNTAX = b"\x0a", b"\x12", b"\x62\x06proto3"


@pytest.mark.parametrize("path", MODULES)
def test_each_field_and_value_agrees_with_the_installed_envoy(path: str) -> None:
    copy = FileDescriptorProto.FromString(MODULES[path].DESCRIPTOR.serialized_pb)
    original = in_envoy(path)
    assert copy.package == original.package
    assert set(defined(copy)) <= set(defined(original))


def test_messages_are_parsed_by_upb() -> None:
    assert api_implementation.Type() == "upb"


def in_envoy(path: str) -> FileDescriptorProto:
    """Return the description of a file that Envoy's executable contains."""
    with envoy.binary().open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(PATH + bytes([len(path)]) + path.encode() + PACKAGE)
        end = content.find(SYNTAX, start) + len(SYNTAX)
        return FileDescriptorProto.FromString(content[start:end])


def defined(file: FileDescriptorProto) -> Iterator[str]:
    """Yield one line for each field, each value of an enum and each method."""
    yield from of_enums(file.enum_type, file.package)
    yield from of_messages(file.message_type, file.package)
    for service in file.service:
        for method in service.method:
            yield f"{service.name}.{method.name}({method.input_type}) -> {method.output_type}"


def of_messages(messages: Iterable[DescriptorProto], scope: str) -> Iterator[str]:
    for message in messages:
        name = f"{scope}.{message.name}"
        oneofs = [oneof.name for oneof in message.oneof_decl]
        for field in message.field:
            oneof = oneofs[field.oneof_index] if field.HasField("oneof_index") else ""
            yield f"{name} {field.number} {field.name} {field.type} {field.type_name} {field.label} {oneof}"
        yield from of_enums(message.enum_type, name)
        yield from of_messages(message.nested_type, name)


def of_enums(enums: Iterable[EnumDescriptorProto], scope: str) -> Iterator[str]:
    for enum in enums:
        for value in enum.value:
            yield f"{scope}.{enum.name} {value.number} {value.name}"
