"""Requests of a published trace: their lengths, prefixes and pattern of arrival, at another rate.

Another seed starts at another place of the trace. When the trace ends it begins again, as if with other users: prompts
of another lap share nothing with those of this one.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable

import numpy as np

from simulator.trace import TraceRequest, load_trace
from simulator.workloads.clocks import by_gaps
from simulator.workloads.draw import Floats, Ints, Requests, stream


@dataclass(frozen=True)
class Trace:
    """A trace's file, read when it is first asked for; TraceError when that fails."""

    path: Traversable

    @cached_property
    def _requests(self) -> list[TraceRequest]:
        return load_trace(self.path)

    @cached_property
    def _prompt_tokens(self) -> Ints:
        return np.array([request.prompt_tokens for request in self._requests])

    @cached_property
    def _output_tokens(self) -> Ints:
        return np.array([request.output_tokens for request in self._requests])

    @cached_property
    def _ids(self) -> int:
        return 1 + max((max(request.hashes, default=0) for request in self._requests), default=0)

    def draw(self, seed: int, count: int) -> Requests:
        place, lap = self._places(seed, count)
        hashes = []
        if self._ids > 1:
            for index, first in zip(place.tolist(), (lap * self._ids).tolist(), strict=True):
                ids = self._requests[index].hashes
                hashes.append(tuple(first + one for one in ids) if first else ids)
        return Requests(self._prompt_tokens[place], self._output_tokens[place], hashes)

    def times(self, seed: int, count: int, seconds: float) -> Floats:
        """The trace's gaps, scaled; between its end and its beginning the mean one."""
        place, _ = self._places(seed, count)
        gaps = np.diff(self._spread_ticks(seed))
        gaps = np.append(gaps, gaps.mean() if gaps.size else 1.0)
        return by_gaps(gaps[place], seconds)

    def _places(self, seed: int, count: int) -> tuple[Ints, Ints]:
        size = len(self._requests)
        index = int(stream(seed, "start").integers(size)) + np.arange(count)
        return index % size, index // size

    def _spread_ticks(self, seed: int) -> Floats:
        """Requests that a trace's clock puts at one time come at random times before its next one.

        Mooncake's clock ticks every three seconds: that they came together is an artefact.
        """
        arrival_s = np.array([request.arrival_s for request in self._requests])
        ticks, tick, sizes = np.unique(arrival_s, return_inverse=True, return_counts=True)
        lengths = np.diff(ticks)
        lengths = np.append(lengths, lengths.mean() if lengths.size else 0.0)
        lengths[sizes == 1] = 0.0
        return np.sort(arrival_s + stream(seed, "ticks").random(arrival_s.size) * lengths[tick])
