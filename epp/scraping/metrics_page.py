"""Read single gauges from a metrics page in Prometheus' text format, without parsing the rest of the page.

A model server's page has hundreds of series. The picker wants a handful of them, tens of times a second. So it searches
the page's bytes for their names. The format keeps all series of one name together, one on a line.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan

from epp.exceptions import ConfigError
from epp.scheduling.snapshot import Adapters

_SPEC = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^{}]*)\})?\s*")
_SPEC_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*("?)([^"]*)\2\s*')
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_NAME_ENDS = (b"{", b" ", b"\t")
# Bytes that a series may move from page to page, as numbers before it get longer. Farther away, search the whole page.
_DRIFT_BYTES = 1024
# Series of one name that are read, bytes of a line, and adapters of a line: many times what any model server reports.
_MOST_SERIES = 1000
_MOST_LINE_BYTES = 1 << 16
MOST_ADAPTERS = 1000


@dataclass(frozen=True, slots=True)
class Gauge:
    """A series to read: by name, and by labels where several series share it."""

    name: bytes
    labels: Mapping[bytes, bytes]

    @classmethod
    def parse(cls, text: str) -> "Gauge | None":
        """Parse `name` or `name{label=value,...}`, values with or without quotes; return None for an empty text."""
        if not text:
            return None
        match = _SPEC.fullmatch(text)
        if not match:
            raise ConfigError(f"metric {text!r}: expected name or name{{label=value,...}}")
        labels = {}
        for pair in filter(None, (match[2] or "").split(",")):
            label = _SPEC_LABEL.fullmatch(pair)
            if not label:
                raise ConfigError(f"metric {text!r}: expected label=value, not {pair!r}")
            labels[label[1].encode()] = label[3].strip().encode()
        return cls(match[1].encode(), labels)

    def __str__(self) -> str:
        labels = ",".join(f"{key.decode()}={value.decode()}" for key, value in self.labels.items())
        return self.name.decode() + (f"{{{labels}}}" if labels else "")

    def find(self, page: bytes, near: int = 0) -> int:
        """Return where the first series of this name begins, or -1. `near` is where it began on an earlier page."""
        line = b"\n" + self.name
        size = len(line)
        at = page.find(line, max(near - _DRIFT_BYTES, 0), near + _DRIFT_BYTES + size)
        if at >= 0 and page[at + size : at + size + 1] in _NAME_ENDS:
            before = page.rfind(b"\n", 0, at) + 1
            if not page.startswith(self.name, before):
                return at + 1
        if page.startswith(self.name) and page[size - 1 : size] in _NAME_ENDS:
            return 0
        at = page.find(line)
        while at >= 0 and page[at + size : at + size + 1] not in _NAME_ENDS:
            at = page.find(line, at + size)
        return at + 1 if at >= 0 else -1

    def read(self, page: bytes, start: int) -> float | None:
        """Return the value of the series at `start`, found by `find`; None if no series of that name has the labels.

        If several series match, the one with the latest timestamp counts, else the first. NaN stands for no number.
        """
        latest, value = -1.0, None
        for labels, number, timestamp in self._series(page, start):
            if timestamp > latest and (not self.labels or self.labels.items() <= parse_labels(labels).items()):
                latest, value = timestamp, number
        return value

    def newest_labels(self, page: bytes, start: int) -> bytes | None:
        """Return the labels of the series with the largest value; the value is the time of its creation."""
        newest, found = -1.0, None
        for labels, number, _ in self._series(page, start):
            if number > newest and (not self.labels or self.labels.items() <= parse_labels(labels).items()):
                newest, found = number, labels
        return found

    def _series(self, page: bytes, start: int) -> Iterator[tuple[bytes, float, float]]:
        """Yield the labels, value and timestamp (0 without one) of each series of this name, from the first one on.

        Overlong lines are left out, and lines beyond _MOST_SERIES.
        """
        size = len(self.name)
        for _ in range(_MOST_SERIES):
            if not page.startswith(self.name, start) or page[start + size : start + size + 1] not in _NAME_ENDS:
                return
            end = page.find(b"\n", start)
            end = len(page) if end < 0 else end
            if end - start > _MOST_LINE_BYTES:
                start = end + 1
                continue
            labels, _, numbers = page[start + size : end].rpartition(b"}")
            fields = numbers.split()
            try:
                yield labels, float(fields[0]), float(fields[1]) if len(fields) > 1 else 0.0
            except (ValueError, IndexError):
                yield labels, nan, 0.0
            start = end + 1


Gauges = tuple[Gauge, ...]
"""Several names for one thing; the first on a page counts."""


def parse_labels(text: bytes) -> dict[bytes, bytes]:
    """Parse the labels between a series' braces."""
    labels = dict(_LABEL.findall(text))
    if b"\\" in text:
        return {key: _ESCAPED.sub(_unescaped, value) for key, value in labels.items()}
    return labels


def parse_adapters(labels: bytes) -> Adapters:
    """Parse the LoRA adapters of vLLM's lora_requests_info: lists by commas, and the number of places.

    Each list ends after MOST_ADAPTERS names.
    """
    values = parse_labels(labels)
    capacity = values.get(b"max_lora", b"")
    return Adapters(
        active=_names(values.get(b"running_lora_adapters", b"")),
        waiting=_names(values.get(b"waiting_lora_adapters", b"")),
        capacity=int(capacity) if capacity.isdigit() and len(capacity) < 10 else 0,
    )


def _names(text: bytes) -> frozenset[str]:
    names = text.decode(errors="replace").split(",", MOST_ADAPTERS)[:MOST_ADAPTERS]
    return frozenset(name.strip() for name in names if name.strip())


def _unescaped(match: re.Match[bytes]) -> bytes:
    return b"\n" if match[1] == b"n" else match[1]
