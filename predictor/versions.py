"""Version policies, as Triton has them: they choose the versions of a model to serve."""

from collections.abc import Iterable
from dataclasses import dataclass

from predictor.exceptions import InputError


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Serve the newest `latest` versions, all of them (`latest=None`), or exactly the `specific` ones."""

    latest: int | None = 1
    specific: frozenset[int] = frozenset()

    @property
    def is_latest(self) -> bool:
        """True if the policy serves only the newest version."""
        return self.latest == 1 and not self.specific

    def choose(self, versions: Iterable[int]) -> list[int]:
        """Return the versions to serve, newest first."""
        newest_first = sorted(set(versions), reverse=True)
        if self.specific:
            return [version for version in newest_first if version in self.specific]
        return newest_first[: self.latest]

    def __str__(self) -> str:
        if self.specific:
            return f"specific:{','.join(map(str, sorted(self.specific)))}"
        return "all" if self.latest is None else f"latest:{self.latest}"


LATEST = VersionPolicy()


def parse_policy(text: str) -> VersionPolicy:
    """Parse `latest:2`, `all` or `specific:1,3`; raise InputError for anything else."""
    kind, _, numbers = text.partition(":")
    given = [int(part) for part in numbers.split(",") if part.isdecimal()]
    if kind == "all" and not numbers:
        return VersionPolicy(latest=None)
    if kind == "latest" and len(given) == 1 and given[0] > 0:
        return VersionPolicy(latest=given[0])
    if kind == "specific" and given and len(given) == len(numbers.split(",")):
        return VersionPolicy(specific=frozenset(given))
    raise InputError(f"version policy {text!r}: expected latest:N, all or specific:N,M")


@dataclass(frozen=True, slots=True)
class VersionPolicies:
    """The operator's policies: a default, and policies by model. Without either, a model's config.pbtxt decides."""

    default: VersionPolicy | None = None
    by_model: tuple[tuple[str, VersionPolicy], ...] = ()

    def policy_of(self, model: str, configured: VersionPolicy = LATEST) -> VersionPolicy:
        return dict(self.by_model).get(model, self.default or configured)


AS_CONFIGURED = VersionPolicies()


def parse_policies(texts: Iterable[str]) -> VersionPolicies:
    """Parse texts like `all` or `ttft=latest:2`; raise InputError for anything else."""
    default, by_model = None, {}
    for text in texts:
        model, separator, policy = text.rpartition("=")
        if separator:
            by_model[model] = parse_policy(policy)
        else:
            default = parse_policy(policy)
    return VersionPolicies(default, tuple(by_model.items()))
