"""The predictor's configuration, read once at start."""

from dataclasses import dataclass

from predictor.loading import LIMITS, Limits
from predictor.repository import POLL
from predictor.versions import AS_CONFIGURED, VersionPolicies


@dataclass(frozen=True, kw_only=True)
class Config:
    """The values of the predictor's flags; the fields have the flags' names.

    `model_type` is reported until a model is loaded. `grpc_port=None` disables gRPC.
    """

    host: str
    port: int
    grpc_port: int | None = None
    cert_path: str = ""
    token_file: str = ""
    model_store: str
    model_sync_interval_sec: float
    model_control_mode: str = POLL
    load_model: tuple[str, ...] = ()
    version_policy: VersionPolicies = AS_CONFIGURED
    training_server_url: str
    model_type: str
    max_body_bytes: int
    max_rows: int
    max_model_bytes: int = LIMITS.model_bytes
    verify_key_file: str = ""
    try_models: bool = True

    @property
    def limits(self) -> Limits:
        return Limits(self.max_model_bytes, self.max_rows)
