"""Kubernetes' objects, cut down to the fields that the picker reads or writes. Names are the API's own."""

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

POOL_GROUP = "inference.networking.k8s.io"
EXPERIMENTAL_GROUP = "inference.networking.x-k8s.io"


class Resource(msgspec.Struct, Generic[T], frozen=True):
    """A kind: the path of its objects in the API, and the class that they are decoded into."""

    group: str
    version: str
    plural: str
    type: type[T]

    def path(self, namespace: str = "", name: str = "") -> str:
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [base, f"namespaces/{namespace}" if namespace else "", self.plural, name]
        return "/".join(filter(None, parts))


class Metadata(msgspec.Struct, frozen=True):
    name: str = ""
    resourceVersion: str = ""  # noqa: N815
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletionTimestamp: str | None = None  # noqa: N815


class PodCondition(msgspec.Struct, frozen=True):
    type: str
    status: str


class PodStatus(msgspec.Struct, frozen=True):
    podIP: str = ""  # noqa: N815
    conditions: list[PodCondition] | None = None


class Pod(msgspec.Struct, frozen=True):
    metadata: Metadata
    status: PodStatus = PodStatus()


class TargetPort(msgspec.Struct, frozen=True):
    number: int


class LabelSelector(msgspec.Struct, frozen=True):
    matchLabels: dict[str, str] = {}  # noqa: N815


class PoolSpec(msgspec.Struct, frozen=True):
    targetPorts: list[TargetPort]  # noqa: N815
    selector: LabelSelector


class InferencePool(msgspec.Struct, frozen=True):
    """An InferencePool of version v1."""

    metadata: Metadata
    spec: PoolSpec

    @property
    def selector(self) -> dict[str, str]:
        return self.spec.selector.matchLabels

    @property
    def target_ports(self) -> tuple[int, ...]:
        return tuple(port.number for port in self.spec.targetPorts)


class ExperimentalPoolSpec(msgspec.Struct, frozen=True):
    targetPortNumber: int  # noqa: N815
    selector: dict[str, str] = {}


class ExperimentalPool(msgspec.Struct, frozen=True):
    """An InferencePool of version v1alpha2."""

    metadata: Metadata
    spec: ExperimentalPoolSpec

    @property
    def selector(self) -> dict[str, str]:
        return self.spec.selector

    @property
    def target_ports(self) -> tuple[int, ...]:
        return (self.spec.targetPortNumber,)


AnyPool = InferencePool | ExperimentalPool


class PoolRef(msgspec.Struct, frozen=True):
    name: str
    group: str = POOL_GROUP


class ObjectiveSpec(msgspec.Struct, frozen=True):
    poolRef: PoolRef  # noqa: N815
    priority: int | None = None


class Objective(msgspec.Struct, frozen=True):
    """An InferenceObjective."""

    metadata: Metadata
    spec: ObjectiveSpec


class LeaseSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    holderIdentity: str | None = None  # noqa: N815
    leaseDurationSeconds: int | None = None  # noqa: N815
    acquireTime: str | None = None  # noqa: N815
    renewTime: str | None = None  # noqa: N815
    leaseTransitions: int | None = None  # noqa: N815


class Lease(msgspec.Struct, frozen=True):
    """A Lease. Its metadata is written back whole, so that nobody's labels get lost."""

    metadata: dict[str, Any]
    spec: LeaseSpec = LeaseSpec()


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    username: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}


class TokenReviewStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: User = User()


class TokenReview(msgspec.Struct, frozen=True, omit_defaults=True):
    spec: dict[str, Any]
    status: TokenReviewStatus = TokenReviewStatus()


class AccessReviewStatus(msgspec.Struct, frozen=True):
    allowed: bool = False


class AccessReview(msgspec.Struct, frozen=True, omit_defaults=True):
    """A SubjectAccessReview."""

    spec: dict[str, Any]
    status: AccessReviewStatus = AccessReviewStatus()


PODS = Resource("", "v1", "pods", Pod)
OBJECTIVES = Resource(EXPERIMENTAL_GROUP, "v1alpha2", "inferenceobjectives", Objective)
LEASES = Resource("coordination.k8s.io", "v1", "leases", Lease)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", TokenReview)
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", AccessReview)
POOLS: dict[str, Resource[AnyPool]] = {
    POOL_GROUP: Resource[AnyPool](POOL_GROUP, "v1", "inferencepools", InferencePool),
    EXPERIMENTAL_GROUP: Resource[AnyPool](EXPERIMENTAL_GROUP, "v1alpha2", "inferencepools", ExperimentalPool),
}
