"""An engine in virtual time that answers the same requests as a real server."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush

from lab.calibration.server.asks import Ask, Timeline
from lab.calibration.server.page import Page
from simulator.engine import Engine
from simulator.hardware import Hardware
from simulator.prompt import BYTES_PER_TOKEN, block_hashes, token_count
from simulator.sequence import Sequence as InEngine


class Twin:
    """A server in virtual time. Its engine, and so its prefix cache, lives from one run to the next."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.engine = Engine(hardware)
        self._ended = 0
        self._names: Iterator[int] = iter(range(1 << 62))

    async def run(self, asks: Sequence[Ask]) -> list[Timeline]:
        return self.replay(asks)

    async def page(self) -> Page:
        engine = self.engine
        return Page(
            running=engine.running,
            waiting=engine.waiting,
            kv_usage=engine.kv_usage,
            ended=self._ended,
            hit_tokens=engine.prompt_tokens_cached,
            num_blocks=self.hardware.num_blocks,
            block_tokens=self.hardware.block_tokens,
            has_prefix_cache=True,
        )

    async def pause(self, seconds: float) -> None:
        pass

    def replay(self, asks: Sequence[Ask]) -> list[Timeline]:
        """Run the requests from an idle engine until all have ended.

        A client that leaves during a step leaves after it, since an engine drops requests between steps.
        """
        engine = self.engine
        timelines = [Timeline(ask.at_s) for ask in asks]
        events: list[tuple[float, int, InEngine | None]] = []
        names: dict[int, InEngine] = {}
        of: dict[object, int] = {}
        for index, ask in enumerate(asks):
            sequence = _sequence(ask, next(self._names), self.hardware)
            timelines[index].prompt_tokens = sequence.prompt_tokens
            names[index], of[sequence.id] = sequence, index
            delay_s = self.hardware.delay_ms(sequence.prompt_tokens) / 1000
            heappush(events, (ask.at_s + delay_s, index, sequence))
            if ask.leave_s is not None:
                heappush(events, (max(ask.at_s + ask.leave_s, ask.at_s + delay_s), index + len(asks), None))
        now_s = 0.0
        while True:
            while events and events[0][0] <= now_s:
                _, index, sequence_or_end = heappop(events)
                if sequence_or_end is None:
                    engine.abort(names[index - len(asks)].id)
                else:
                    engine.submit(sequence_or_end)
            step = engine.step()
            if step is None:
                if not events:
                    break
                now_s = events[0][0]
                continue
            now_s += step.duration_ms / 1000
            for name in step.produced:
                timeline = timelines[of[name]]
                timeline.times.append(now_s)
                timeline.tokens.append(len(timeline.tokens) + 1)
            self._ended += len(step.finished)
        return timelines


def capacity_rps(asks: Sequence[Ask], hardware: Hardware) -> float:
    """Return how many such requests the twin completes in a second when it always has enough of them."""
    timelines = Twin(hardware).replay([replace(ask, at_s=0.0, leave_s=None) for ask in asks])
    return len(asks) / max(timeline.times[-1] for timeline in timelines)


def _sequence(ask: Ask, name: int, hardware: Hardware) -> InEngine:
    text = as_bytes(ask.prompt)
    hashes = block_hashes(text, hardware.block_tokens)
    return InEngine(name, hashes, token_count(text), ask.output_tokens, priority=ask.priority)


def as_bytes(prompt: tuple[int, ...] | str) -> bytes:
    """Return the prompt as the simulator sees it: four bytes a token."""
    if isinstance(prompt, str):
        return prompt.encode()
    return b"".join(token.to_bytes(BYTES_PER_TOKEN, "little") for token in prompt)
