"""A response's output tokens in stretches, each with the features of the moment when it began.

The time per output token depends on the load while the tokens are made. So a long response teaches several times: its
stretches double in length. That keeps their number small, and the early ones, which all responses have, frequent.
"""

from dataclasses import dataclass, field

from epp.prediction.features import FeatureColumns

# Output events of the first stretch; each further stretch has twice as many as the one before.
_FIRST_EVENTS = 32
# A shorter stretch says more about the network's rhythm than about the server.
_FEWEST_EVENTS = 8
# Output events whose mean time is one observation of an endpoint's pace. A step that reads a prompt is many times as
# long as others, and every response that decodes meanwhile waits for it.
PACE_EVENTS = 32


@dataclass(slots=True)
class Pace:
    """The mean time between a response's output events, over one run of events after another.

    Single times would show whether a prompt has just been read, not how fast the server is.
    """

    began_s: float = 0.0
    events: int = 0

    @property
    def is_due(self) -> bool:
        """True if the run is long enough to be reported."""
        return self.events >= PACE_EVENTS

    def begin(self, now_s: float) -> None:
        """Begin the first run, or another one."""
        self.began_s, self.events = now_s, 0

    def take(self, now_s: float) -> tuple[float, int]:
        """Return the run's time in ms and its events, and begin another one."""
        time_ms, events = (now_s - self.began_s) * 1000, self.events
        self.begin(now_s)
        return time_ms, events


@dataclass(slots=True)
class Stretch:
    """`events` output events after `before` earlier ones; times are seconds of a monotonic clock."""

    features: FeatureColumns
    before: int
    began_s: float
    ended_s: float
    events: int = 0

    def tpot_ms(self, tokens_per_event: float) -> float:
        return (self.ended_s - self.began_s) * 1000 / (self.events * tokens_per_event)


@dataclass(slots=True)
class TokenStretches:
    """The stretches of one response. `is_due` says when to begin the next stretch, with the features of the moment."""

    stretches: list[Stretch] = field(default_factory=list)
    _room: int = 0

    @property
    def is_due(self) -> bool:
        return self._room <= 0

    def begin(self, features: FeatureColumns, before: int, now_s: float) -> None:
        self._room = _FIRST_EVENTS << len(self.stretches)
        self.stretches.append(Stretch(features, before, now_s, now_s))

    def add(self, events: int, now_s: float) -> None:
        stretch = self.stretches[-1]
        stretch.events += events
        stretch.ended_s = now_s
        self._room -= events

    def end(self, now_s: float) -> None:
        """Set the time when the latest stretch's last token came."""
        self.stretches[-1].ended_s = now_s

    def complete(self) -> list[Stretch]:
        """Return those long enough to teach; the first one also when the whole response was short."""
        return [s for i, s in enumerate(self.stretches) if s.events >= _FEWEST_EVENTS or (i == 0 and s.events)]
