"""A stopwatch for the plugins of one decision."""

import time
from collections.abc import Callable

from epp.scheduling.plugin import Plugin

# The arguments are extension point, plugin type, plugin name, seconds.
Observe = Callable[[str, str, str, float], None]


class PluginWatch:
    """Reports each plugin's time, measured from the end of the plugin before. Call `lap` after each plugin."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._last_s = time.perf_counter()

    def lap(self, extension_point: str, plugin: Plugin, name: str = "") -> None:
        now_s = time.perf_counter()
        self._observe(extension_point, plugin.type_name, name or plugin.type_name, now_s - self._last_s)
        self._last_s = now_s
