"""The plugins that come with the picker; importing this package registers them."""

from epp.scheduling.plugins import filters, load, pickers, prefix, profiles, slo

__all__ = ["filters", "load", "pickers", "prefix", "profiles", "slo"]
