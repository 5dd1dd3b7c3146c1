"""The simulated server's configuration, read once at the start."""

from dataclasses import dataclass

from simulator.hardware import Hardware


@dataclass(frozen=True, kw_only=True)
class Config:
    host: str
    port: int
    name: str
    model: str
    hardware: Hardware
    speed_factor: float
