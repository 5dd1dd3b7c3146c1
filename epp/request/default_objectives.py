"""Objectives for requests that bring none, by model or header, from a file that the operator writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from epp.request import headers as request_headers
from epp.scheduling.configuration.document import read_document

_Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Objectives, and the requests that get them: those of `model`, if any is named, with all of `headers`."""

    ttft_ms: _Milliseconds | None = None
    tpot_ms: _Milliseconds | None = None
    model: str = ""
    headers: dict[str, str] = {}

    def __str__(self) -> str:
        given = {"TTFT": self.ttft_ms, "TPOT": self.tpot_ms}
        limits = ", ".join(f"{name} {ms:g} ms" for name, ms in given.items() if ms is not None)
        conditions = [f"model {self.model}"] if self.model else []
        conditions += [f"{name}: {value}" for name, value in self.headers.items()]
        return f"{' and '.join(conditions) or 'all'}: {limits}"

    def matches(self, model: str, headers: Mapping[str, str]) -> bool:
        return self.model in ("", model) and self.headers.items() <= headers.items()


class _Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    objectives: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request's objectives in ms, and whether it is routed by prediction."""

    ttft_ms: float | None
    tpot_ms: float | None
    is_predicted: bool


class DefaultObjectives:
    """The rules of the file; None without a file. They may be replaced at any time."""

    def __init__(self, rules: tuple[Rule, ...] | None = None) -> None:
        self.rules = rules

    def wanted(self, model: str, headers: Mapping[str, str]) -> Wanted:
        """Return what a request for `model` wants. Raise BadRequestError for a header that can't be read.

        The first rule that matches gives both objectives to a request that brings neither. With a file, a request that
        has objectives is routed by prediction unless it says otherwise.
        """
        ttft_ms = request_headers.objective_ms(headers, request_headers.TTFT)
        tpot_ms = request_headers.objective_ms(headers, request_headers.TPOT)
        is_predicted = request_headers.wants_prediction(headers)
        if self.rules is None:
            return Wanted(ttft_ms, tpot_ms, is_predicted)
        if request_headers.first(headers, (*request_headers.TTFT, *request_headers.TPOT)) is None:
            rule = next((rule for rule in self.rules if rule.matches(model, headers)), None)
            ttft_ms, tpot_ms = (rule.ttft_ms, rule.tpot_ms) if rule else (None, None)
        if request_headers.PREDICTION not in headers:
            is_predicted = ttft_ms is not None or tpot_ms is not None
        return Wanted(ttft_ms, tpot_ms, is_predicted)


def read_default_objectives(text: str) -> tuple[Rule, ...]:
    """Read the rules from YAML or JSON. ConfigError names the line of what is wrong."""
    document = read_document(text)
    try:
        rules = msgspec.convert(document.value, _Rules).objectives
    except msgspec.ValidationError as error:
        raise document.located(error) from error
    for number, rule in enumerate(rules):
        place = f"$.objectives[{number}]"
        if rule.ttft_ms is None and rule.tpot_ms is None:
            raise document.error("expected ttftMs, tpotMs or both", place)
        if wrong := next((name for name in rule.headers if name != name.lower()), None):
            raise document.error(f"expected {wrong.lower()!r}: headers have names in lower case", f"{place}.headers")
    return rules
