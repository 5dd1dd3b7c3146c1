"""The predictor's configuration, read once at the start."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    """Names are those of the flags. `model_type` is only reported until a manifest says better."""

    host: str
    port: int
    model_store: str
    model_sync_interval_sec: float
    training_server_url: str
    model_type: str
    max_body_bytes: int
    max_rows: int
