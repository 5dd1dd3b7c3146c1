"""How long each plugin takes, for the decisions that are timed."""

import time
from collections.abc import Callable

from epp.scheduling.plugin import Plugin

# Extension point, plugin type, plugin name, seconds.
Observe = Callable[[str, str, str, float], None]


class PluginWatch:
    """Told after each plugin that it has run; the time is that since the one before."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._last_s = time.perf_counter()

    def lap(self, extension_point: str, plugin: Plugin, name: str = "") -> None:
        now_s = time.perf_counter()
        self._observe(extension_point, plugin.type_name, name or plugin.type_name, now_s - self._last_s)
        self._last_s = now_s
