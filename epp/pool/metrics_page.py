"""Reading the few wanted gauges from a model server's metrics page."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from epp.exceptions import ConfigError

_SPEC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^{}]*)\})?")
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Gauge:
    """A series to read: by name, and by labels where several series share it."""

    pattern: re.Pattern[bytes]
    labels: Mapping[bytes, bytes]

    @classmethod
    def parse(cls, text: str) -> "Gauge | None":
        """From `name` or `name{label=value,...}` without quotes; None for an empty text."""
        if not text:
            return None
        match = _SPEC.fullmatch(text)
        if not match:
            raise ConfigError(f"metric {text!r}: expected name or name{{label=value,...}}")
        pairs = [pair.partition("=") for pair in (match[2] or "").split(",") if pair]
        labels = {key.strip().encode(): value.strip().encode() for key, _, value in pairs}
        name = re.escape(match[1].encode())
        return cls(re.compile(rb"^" + name + rb"(?:\{(.*)\})? +([^ \n]+)", re.MULTILINE), labels)

    def read(self, page: bytes) -> float | None:
        """The value of the first series that carries the labels; None when the page has none."""
        for match in self.pattern.finditer(page):
            if self.labels and not self.labels.items() <= dict(_LABEL.findall(match[1] or b"")).items():
                continue
            try:
                return float(match[2])
            except ValueError:
                return None
        return None
