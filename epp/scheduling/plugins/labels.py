"""Filters and scorers by endpoint labels. Labels seldom change, so results are cached until the endpoints change."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from epp.scheduling.plugin import Filter, Plugin, Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Endpoint, Floats, Snapshot

_ROLE = "llm-d.ai/role"
_TEST_HEADER = "test-epp-endpoint-selection"

Name = Annotated[str, msgspec.Meta(min_length=1)]
Labels = Mapping[str, str]
T = TypeVar("T", bound=np.generic)


def by_endpoint(
    owner: Plugin, candidates: Snapshot, read: Callable[[tuple[Endpoint, ...]], NDArray[T]], key: object = None
) -> NDArray[T]:
    """Return `read(endpoints)` for the candidates, which are the last axis of the array.

    The result is cached in `owner` until the endpoints or `key` change.
    """
    endpoints = candidates.whole.endpoints
    known = owner.__dict__.get("by_endpoint")
    if known is None or known[0] is not endpoints or known[1] != key:
        known = owner.__dict__["by_endpoint"] = (endpoints, key, read(endpoints))
    values: NDArray[T] = known[2]
    return values if candidates.positions is None else values[..., candidates.positions]


class _LabelFilter(Filter, frozen=True):
    def matches(self, labels: Labels) -> bool:
        raise NotImplementedError

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        return by_endpoint(self, candidates, self._read)

    def _read(self, endpoints: tuple[Endpoint, ...]) -> Bools:
        return np.fromiter((self.matches(endpoint.labels) for endpoint in endpoints), bool, len(endpoints))


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One expression of a label selector, as Kubernetes defines it."""

    key: Name
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError("values: In and NotIn need some, Exists and DoesNotExist take none")

    def holds(self, labels: Labels) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


@plugin("label-selector-filter", "by-label-selector")
class LabelSelectorFilter(_LabelFilter, frozen=True):
    """Keeps the endpoints that a Kubernetes label selector matches; an empty one matches all."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.holds(labels) for requirement in self.match_expressions
        )


@plugin("by-label")
class ByLabelFilter(_LabelFilter, frozen=True):
    """Keeps the endpoints whose label has one of the values, and those without the label if `allowsNoLabel`."""

    label: Name
    valid_values: tuple[str, ...] = ()
    allows_no_label: bool = False

    def __post_init__(self) -> None:
        if not self.valid_values and not self.allows_no_label:
            raise ValueError("validValues: give some, or allowsNoLabel: true")

    def matches(self, labels: Labels) -> bool:
        value = labels.get(self.label)
        return self.allows_no_label if value is None else value in self.valid_values


@plugin("decode-filter")
class DecodeFilter(_LabelFilter, frozen=True):
    """Keeps the endpoints whose label `llm-d.ai/role` says that they decode, and those without a role."""

    def matches(self, labels: Labels) -> bool:
        return labels.get(_ROLE, "both") in ("decode", "prefill-decode", "both", "encode-prefill-decode")


@plugin("prefill-filter")
class PrefillFilter(_LabelFilter, frozen=True):
    """Keeps the endpoints whose label `llm-d.ai/role` says that they prefill."""

    def matches(self, labels: Labels) -> bool:
        roles = ("prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode")
        return labels.get(_ROLE) in roles


@plugin("encode-filter")
class EncodeFilter(_LabelFilter, frozen=True):
    """Keeps the endpoints whose label `llm-d.ai/role` says that they encode."""

    def matches(self, labels: Labels) -> bool:
        return labels.get(_ROLE) in ("encode", "encode-prefill", "encode-prefill-decode")


@plugin("header-based-testing-filter")
class HeaderBasedTestingFilter(Filter, frozen=True):
    """Keeps the endpoints that the header `test-epp-endpoint-selection` lists as ip or ip:port; without it, none."""

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        listed = {item.strip() for item in request.headers.get(_TEST_HEADER, "").split(",")} - {""}
        bare = {item.strip("[]") for item in listed}
        keep = (e.address in listed or e.address.rpartition(":")[0].strip("[]") in bare for e in candidates.endpoints)
        return np.fromiter(keep, bool, len(candidates))


@plugin("header-label-affinity-scorer")
class HeaderLabelAffinityScorer(Scorer, frozen=True):
    """Scores 1 where the endpoint's label `labelKey` equals the request's header `headerName`, else 0."""

    header_name: Name
    label_key: Name

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        wanted = request.headers.get(self.header_name.lower(), "").strip()
        if not wanted:
            return np.zeros(len(candidates))

        def read(endpoints: tuple[Endpoint, ...]) -> Floats:
            same = (endpoint.labels.get(self.label_key) == wanted for endpoint in endpoints)
            return np.fromiter(same, float, len(endpoints))

        return by_endpoint(self, candidates, read, wanted)


@plugin("context-length-aware")
class ContextLengthAware(Filter, Scorer, frozen=True):
    """Prefers the endpoints whose label gives the narrowest range (`0-2048`) of prompt tokens that fits the prompt.

    Scores, in tokens:
    - within the range: 0.3 + 0.7 * (0.7 / (1 + width / 10,000) + 0.3 * room above / width)
    - outside the range: 0.3 / (1 + distance / 1,000)
    - without the label: 0.5
    - with a label that is no range: 0

    `enableFiltering` drops the endpoints whose range excludes the prompt or can't be read.
    """

    label: Name = "llm-d.ai/context-length-range"
    enable_filtering: bool = False

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        if not self.enable_filtering:
            return np.ones(len(candidates), dtype=bool)
        low, high, unlabelled = by_endpoint(self, candidates, self._read)
        takes: Bools = (unlabelled > 0) | ((low <= request.input_tokens) & (request.input_tokens <= high))
        return takes

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        low, high, unlabelled = by_endpoint(self, candidates, self._read)
        tokens = request.input_tokens
        width = np.maximum(high - low, 0.0)
        raw = 0.7 / (1.0 + width / 10_000) + 0.3 * (high - tokens) / np.maximum(width, 1.0)
        inside = np.where(width == 0, 1.0, 0.3 + 0.7 * raw)
        outside = 0.3 / (1.0 + np.maximum(tokens - high, low - tokens) / 1000)
        scores = np.where((low <= tokens) & (tokens <= high), inside, outside)
        scores[high < 0] = 0.0
        scores[unlabelled > 0] = 0.5
        return scores

    def _read(self, endpoints: tuple[Endpoint, ...]) -> Floats:
        """Return three rows: the range's two ends (0 and -1 if unreadable), and 1 where there is no label."""
        ranges = np.empty((3, len(endpoints)))
        for index, endpoint in enumerate(endpoints):
            text = endpoint.labels.get(self.label)
            low, high = (0, -1) if text is None else _range(text)
            ranges[:, index] = low, high, text is None
        return ranges


def _range(text: str) -> tuple[int, int]:
    low, _, high = (part.strip() for part in text.partition("-"))
    if low.isdecimal() and high.isdecimal() and int(low) <= int(high):
        return int(low), int(high)
    return 0, -1
