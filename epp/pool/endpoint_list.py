"""Parse endpoints from a list on the command line, or from a YAML or JSON file."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import yaml

from epp.exceptions import ConfigError
from epp.pool.addresses import check_host, check_port, join_address, split_address

# libyaml is about ten times faster than the Python loader, but some builds of PyYAML lack libyaml.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INDEX = re.compile(r"endpoints\[(\d+)\]")
_MAX_DEPTH = 32

Given = TypeVar("Given")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class ListedEndpoint:
    """An endpoint whose host may be an unresolved name. `metrics` is the host and port of a separate metrics page.

    `server_name` is the name that the server's certificate must have. If it is empty, that is the host.
    """

    name: str
    host: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, int] | None = None
    server_name: str = ""

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An entry of llm-d's endpoint files, plus `metricsPort` and `serverName`. As in llm-d, ports may be quoted."""

    address: str
    port: int | str
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    metrics_port: int | str | None = None
    metrics_host: str = ""
    server_name: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoints: tuple[_Entry, ...]


def parse_list(text: str) -> tuple[ListedEndpoint, ...]:
    """Parse `[name=]host:port,...`; ConfigError names the wrong part."""
    listed = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, address = part.rpartition("=")
        try:
            host, port = split_address(address)
        except ConfigError as error:
            raise ConfigError(f"endpoint {part!r}: expected [name=]host:port: {error}") from error
        listed.append(ListedEndpoint(name or join_address(host, port), host, port))
    repeated = _find_repeated(listed)
    if repeated:
        first, second, what = repeated
        raise ConfigError(f"endpoints {first + 1} and {second + 1} of the list have the same {what}")
    return tuple(listed)


def parse_file(text: bytes) -> tuple[ListedEndpoint, ...]:
    """Parse YAML or JSON; ConfigError names the line and the wrong field."""
    try:
        _check_depth(text)
        document = msgspec.convert(yaml.load(text, _Loader), _File)  # noqa: S506 - both loaders are safe ones
        listed = tuple(_parse_entry(entry, number) for number, entry in enumerate(document.endpoints))
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    except (msgspec.ValidationError, ConfigError) as error:
        index = _INDEX.search(str(error))
        where = f"line {_line(text, int(index[1]))}: " if index else ""
        raise ConfigError(f"{where}{error}") from error
    repeated = _find_repeated(listed)
    if repeated:
        first, second, what = repeated
        lines = f"lines {_line(text, first)} and {_line(text, second)}"
        raise ConfigError(f"{lines}: endpoints[{first}] and endpoints[{second}] have the same {what}")
    return listed


def _parse_entry(entry: _Entry, number: int) -> ListedEndpoint:
    place = f"endpoints[{number}]"
    host = _field(f"{place}.address", check_host, entry.address)
    port = _field(f"{place}.port", check_port, entry.port)
    metrics = None
    if entry.metrics_host and entry.metrics_port is not None:
        raise ConfigError(f"{place}: metricsHost and metricsPort exclude each other: metricsHost is host:port")
    if entry.metrics_host:
        metrics = _field(f"{place}.metricsHost", split_address, entry.metrics_host)
    elif entry.metrics_port is not None:
        metrics = host, _field(f"{place}.metricsPort", check_port, entry.metrics_port)
    name = entry.name or join_address(host, port)
    if entry.namespace not in ("", "default"):
        name = f"{entry.namespace}/{name}"
    server_name = _field(f"{place}.serverName", check_host, entry.server_name) if entry.server_name else ""
    return ListedEndpoint(name, host, port, entry.labels, metrics, server_name)


def _field(place: str, check: Callable[[Given], Read], value: Given) -> Read:
    try:
        return check(value)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _find_repeated(listed: Sequence[ListedEndpoint]) -> tuple[int, int, str] | None:
    """Return the indices of two endpoints with the same address or name, and what the two share."""
    seen: dict[str, int] = {}
    for number, one in enumerate(listed):
        for what in (f"address {one.address}", f"name {one.name}"):
            first = seen.setdefault(what, number)
            if first != number:
                return first, number, what
    return None


def _check_depth(text: bytes) -> None:
    """Raise ConfigError for deep nesting. Both loaders recurse; libyaml's would overflow the stack and crash."""
    depth = 0
    events: Iterator[yaml.Event] = yaml.parse(text, _Loader)
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"nested more than {_MAX_DEPTH} deep")


def _line(text: bytes, number: int) -> int:
    """Return the line on which an entry of `endpoints` begins; 0 when there is no such entry."""
    root: yaml.Node | None = yaml.compose(text, _Loader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "endpoints" and isinstance(value, yaml.SequenceNode) and number < len(value.value):
            return int(value.value[number].start_mark.line) + 1
    return 0
