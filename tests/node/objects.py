"""The fields that the agent reads from Kubernetes objects, under the API's own names."""

from typing import Any

import msgspec


class _Struct(msgspec.Struct, frozen=True, rename="camel"):
    """Base of all objects. Fields are encoded under the API's camel-case names."""


class Metadata(_Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None


class KeySelector(_Struct, frozen=True, rename="camel"):
    key: str
    name: str = ""
    optional: bool = False


class FieldSelector(_Struct, frozen=True, rename="camel"):
    field_path: str


class Source(_Struct, frozen=True, rename="camel"):
    """A reference to a whole ConfigMap or Secret."""

    name: str = ""
    optional: bool = False


class EnvSource(_Struct, frozen=True, rename="camel"):
    field_ref: FieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    resource_field_ref: Any = None


class EnvVar(_Struct, frozen=True, rename="camel"):
    name: str
    value: str = ""
    value_from: EnvSource | None = None


class EnvFrom(_Struct, frozen=True, rename="camel"):
    prefix: str = ""
    config_map_ref: Source | None = None
    secret_ref: Source | None = None


class HttpGet(_Struct, frozen=True, rename="camel"):
    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[dict[str, str]] = []


class Port(_Struct, frozen=True, rename="camel"):
    port: int | str


class Grpc(_Struct, frozen=True, rename="camel"):
    port: int
    service: str = ""


class Command(_Struct, frozen=True, rename="camel"):
    command: list[str] = []


class Pause(_Struct, frozen=True, rename="camel"):
    seconds: int = 0


class Action(_Struct, frozen=True, rename="camel"):
    """The action of a probe or a hook. Exactly one field is set."""

    exec: Command | None = None
    http_get: HttpGet | None = None
    tcp_socket: Port | None = None
    grpc: Grpc | None = None
    sleep: Pause | None = None


class Probe(Action, frozen=True, rename="camel"):
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class Lifecycle(_Struct, frozen=True, rename="camel"):
    pre_stop: Action | None = None
    post_start: Action | None = None


class VolumeMount(_Struct, frozen=True, rename="camel"):
    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""


class Capabilities(_Struct, frozen=True, rename="camel"):
    add: list[str] = []
    drop: list[str] = []


class SecurityContext(_Struct, frozen=True, rename="camel"):
    """A container's security context. A pod's is PodSecurityContext."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool = True
    capabilities: Capabilities = Capabilities()


class PodSecurityContext(_Struct, frozen=True, rename="camel"):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: list[int] = []


class ContainerPort(_Struct, frozen=True, rename="camel"):
    container_port: int
    name: str = ""


class Container(_Struct, frozen=True, rename="camel"):
    name: str
    image: str
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    env: list[EnvVar] = []
    env_from: list[EnvFrom] = []
    ports: list[ContainerPort] = []
    volume_mounts: list[VolumeMount] = []
    security_context: SecurityContext = SecurityContext()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle = Lifecycle()
    restart_policy: str = ""


class KeyToPath(_Struct, frozen=True, rename="camel"):
    key: str
    path: str
    mode: int | None = None


class MapVolume(_Struct, frozen=True, rename="camel"):
    """A volume of a ConfigMap (`name`) or a Secret (`secretName`, or `name` within a projected volume)."""

    name: str = ""
    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class DownwardItem(_Struct, frozen=True, rename="camel"):
    path: str
    field_ref: FieldSelector | None = None
    mode: int | None = None


class DownwardVolume(_Struct, frozen=True, rename="camel"):
    items: list[DownwardItem] = []
    default_mode: int = 0o644


class TokenSource(_Struct, frozen=True, rename="camel"):
    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class Projection(_Struct, frozen=True, rename="camel"):
    config_map: MapVolume | None = None
    secret: MapVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(name="downwardAPI", default=None)
    service_account_token: TokenSource | None = None


class Projected(_Struct, frozen=True, rename="camel"):
    sources: list[Projection] = []
    default_mode: int = 0o644


class EmptyDir(_Struct, frozen=True, rename="camel"):
    medium: str = ""
    size_limit: str = ""


class ClaimSource(_Struct, frozen=True, rename="camel"):
    claim_name: str
    read_only: bool = False


class Volume(_Struct, frozen=True, rename="camel"):
    name: str
    config_map: MapVolume | None = None
    secret: MapVolume | None = None
    projected: Projected | None = None
    downward_api: DownwardVolume | None = msgspec.field(name="downwardAPI", default=None)
    empty_dir: EmptyDir | None = None
    persistent_volume_claim: ClaimSource | None = None


class PodSpec(_Struct, frozen=True, rename="camel"):
    containers: list[Container]
    init_containers: list[Container] = []
    volumes: list[Volume] = []
    node_name: str = ""
    service_account_name: str = ""
    hostname: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    enable_service_links: bool = True
    security_context: PodSecurityContext = PodSecurityContext()


class PodCondition(_Struct, frozen=True, rename="camel"):
    type: str
    status: str
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class PodStatus(_Struct, frozen=True, rename="camel"):
    phase: str = "Pending"
    conditions: list[PodCondition] = []
    start_time: str | None = None


class Pod(_Struct, frozen=True, rename="camel"):
    metadata: Metadata
    spec: PodSpec
    status: PodStatus = PodStatus()


def to_pod(found: Any) -> Pod:
    """Convert lightkube's object, or the API server's JSON as a dictionary, into a Pod."""
    return msgspec.convert(found if isinstance(found, dict) else found.to_dict(), Pod)
