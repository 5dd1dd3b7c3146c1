"""Requests of a published trace: their lengths, prefixes and arrival pattern, at another rate.

The seed decides where in the trace a run starts. At its end the trace repeats as if with other users: prompts of
different laps share no prefix.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable

import numpy as np

from simulator.trace import TraceRequest, load_trace
from simulator.workloads.arrival_times import by_gaps
from simulator.workloads.draw import Floats, Ints, Requests, stream


@dataclass(frozen=True)
class Trace:
    """A trace file, read at first use. Use raises TraceError if the file can't be read."""

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
        """Return times with the trace's gaps, scaled. Between its end and its beginning lies the mean gap."""
        place, _ = self._places(seed, count)
        gaps = np.diff(self._spread_ticks(seed))
        gaps = np.append(gaps, gaps.mean() if gaps.size else 1.0)
        return by_gaps(gaps[place], seconds)

    def _places(self, seed: int, count: int) -> tuple[Ints, Ints]:
        size = len(self._requests)
        index = int(stream(seed, "start").integers(size)) + np.arange(count)
        return index % size, index // size

    def _spread_ticks(self, seed: int) -> Floats:
        """Return the trace's arrival times. Requests with equal times are spread at random up to the next time.

        Mooncake's clock ticks every three seconds, so equal times in its trace are an artefact.
        """
        arrival_s = np.array([request.arrival_s for request in self._requests])
        ticks, tick, sizes = np.unique(arrival_s, return_inverse=True, return_counts=True)
        lengths = np.diff(ticks)
        lengths = np.append(lengths, lengths.mean() if lengths.size else 0.0)
        lengths[sizes == 1] = 0.0
        return np.sort(arrival_s + stream(seed, "ticks").random(arrival_s.size) * lengths[tick])
