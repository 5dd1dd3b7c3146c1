"""Measured times of steps, with intervals that show how noisy they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lab.calibration.server.asks import Timeline

# A batch's step time is taken over this many steps: a client doesn't see single steps when several tokens come at once.
_STEPS = 8
# Steps after a change of the batch that are left out, since the server mixes them with those before.
_SETTLING = 2
# Half the 95 % interval of a median is this many interquartile ranges over the root of the number of samples.
_NOTCH = 1.57


@dataclass
class Cell:
    """Repeated measurements of one quantity, in ms."""

    values: list[float] = field(default_factory=list)

    @property
    def ms(self) -> float:
        return float(np.median(self.values))

    @property
    def noise(self) -> float:
        """Half the 95 % interval of the median, as a share of the median; 1 for a single value."""
        if len(self.values) < 2:
            return 1.0
        low, high = np.percentile(self.values, (25, 75))
        return _NOTCH * float(high - low) / float(np.sqrt(len(self.values))) / max(self.ms, 1e-9)


@dataclass
class Samples:
    """All measurements of a server, in ms.

    - `prefill`: by (new tokens, cached tokens before them), the time to first token of one prompt on an idle server.
    - `decode`: by (batch, context), the time of a step that only decodes. Contexts are rounded to those asked for.
    - `contexts`: the mean context of each of these steps, in tokens.
    - `shared`: by (batch, shared tokens), the time of a step that only decodes sequences with a common beginning;
      `shared_contexts` has their mean contexts.
    - `texts`: by words, the time that each token of a prompt takes longer if the prompt is a text.
    """

    prefill: dict[tuple[int, int], Cell] = field(default_factory=dict)
    decode: dict[tuple[int, int], Cell] = field(default_factory=dict)
    contexts: dict[tuple[int, int], Cell] = field(default_factory=dict)
    texts: dict[int, Cell] = field(default_factory=dict)
    shared: dict[tuple[int, int], Cell] = field(default_factory=dict)
    shared_contexts: dict[tuple[int, int], Cell] = field(default_factory=dict)

    def cells(self) -> dict[str, Cell]:
        """Return the measured times by what they measured, in words."""
        found = {f"prompt of {tokens} tokens after {cached}": cell for (tokens, cached), cell in self.prefill.items()}
        return found | {f"{batch} decodes at {context} tokens": cell for (batch, context), cell in self.decode.items()}

    def noise(self) -> dict[str, float]:
        return {name: cell.noise for name, cell in self.cells().items()}


@dataclass(frozen=True, slots=True)
class Slice:
    """Some steps of a batch that stayed the same: the sequences, the mean tokens of each so far, and a step's time."""

    batch: int
    generated: float
    step_ms: float


def slices(timelines: Sequence[Timeline]) -> list[Slice]:
    """Cut the time when requests decoded together into slices of some steps with the same batch.

    Times before the last first token are left out, because prompts are computed then.
    """
    begun_s = max(timeline.times[0] for timeline in timelines)
    ends = sorted({timeline.times[-1] for timeline in timelines if timeline.times[-1] > begun_s})
    found: list[Slice] = []
    for low_s, high_s in zip([begun_s, *ends], ends, strict=False):
        found += _slices_between(timelines, low_s, high_s)
    return found


def _slices_between(timelines: Iterable[Timeline], low_s: float, high_s: float) -> list[Slice]:
    active = [one for one in timelines if one.times[0] <= low_s and one.times[-1] >= high_s]
    counts = np.array([np.interp([low_s, high_s], one.times, one.tokens) for one in active])
    steps = float((counts[:, 1] - counts[:, 0]).mean()) if active else 0.0
    if steps < _STEPS + _SETTLING:
        return []
    low_s += (high_s - low_s) * _SETTLING / steps
    borders = np.linspace(low_s, high_s, int((steps - _SETTLING) // _STEPS) + 1)
    mean = np.array([np.interp(borders, one.times, one.tokens) for one in active]).mean(axis=0)
    return [
        Slice(len(active), float(mean[at] + mean[at + 1]) / 2, 1000 * float(borders[at + 1] - borders[at]) / taken)
        for at in range(len(borders) - 1)
        if (taken := float(mean[at + 1] - mean[at])) > 0
    ]
