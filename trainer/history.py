"""The history of training passes: what each published or why not, how good its models are, and what they look at."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime

import msgspec

from trainer.job import FittedModel
from trainer.training_pass import PassResult

# Some hours of passes, in about a megabyte.
_KEPT = 500
# Outcomes that repeat until there is something to do.
_IDLE = ("too_few_samples", "standby")


class ModelInPass(msgspec.Struct, frozen=True):
    """A fitted model. `scores` are of held-out rows; `effects` is what `trainer.effects` says of each feature."""

    train_samples: int
    holdout_samples: int
    scores: dict[str, float]
    effects: dict[str, float]
    quantile: float | None
    refusal: str
    drift_score: float


class Pass(msgspec.Struct, frozen=True):
    """A training pass and its models by target."""

    at: datetime
    outcome: str
    reason: str
    generation: int | None
    models: dict[str, ModelInPass]
    seconds: float


class History:
    """The newest passes. An idle pass is kept only if the one before wasn't idle for the same reason."""

    def __init__(self) -> None:
        self._passes: deque[Pass] = deque(maxlen=_KEPT)

    def add(self, result: PassResult) -> None:
        last = self._passes[-1] if self._passes else None
        if result.outcome in _IDLE and last is not None and last.outcome == result.outcome:
            return
        self._passes.append(
            Pass(
                result.at,
                result.outcome,
                result.reason,
                result.generation.generation if result.generation else None,
                {name: _in_pass(model) for name, model in result.fitted.items()},
                round(result.seconds.get("pass", 0.0), 3),
            )
        )

    def passes(self) -> Iterable[Pass]:
        """Return the passes, the earliest first."""
        return tuple(self._passes)


def _in_pass(model: FittedModel) -> ModelInPass:
    manifest = model.manifest
    return ModelInPass(
        manifest.train_samples,
        manifest.holdout_samples,
        manifest.holdout_scores,
        model.effects,
        manifest.outputs[0].quantile,
        model.refusal,
        round(model.drift_score, 2),
    )
