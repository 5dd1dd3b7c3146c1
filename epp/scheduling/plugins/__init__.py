"""The plugins that come with the picker; importing this package registers them."""

from epp.scheduling.plugins import (
    admission,
    labels,
    latency,
    load,
    lora,
    markers,
    pickers,
    prefix,
    profiles,
    sessions,
    slo,
)

__all__ = [
    "admission",
    "labels",
    "latency",
    "load",
    "lora",
    "markers",
    "pickers",
    "prefix",
    "profiles",
    "sessions",
    "slo",
]
