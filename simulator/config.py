"""The simulated server's configuration, read once at the start."""

from dataclasses import dataclass

from simulator.hardware import Hardware


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings. Without `otlp_traces_endpoint`, no spans are made."""

    host: str
    port: int
    name: str
    model: str
    hardware: Hardware
    speed_factor: float
    otlp_traces_endpoint: str = ""
