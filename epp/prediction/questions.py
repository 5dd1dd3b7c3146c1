"""What the latency models are asked for a decision, and, now and then, beside it.

Beside it they are asked what reading prompts costs on each endpoint, by two made-up requests for each candidate, alike
but that one finds its whole prompt cached: what the other takes longer to its first token is the price of its prompt,
on that endpoint under its present load. And what they would have said of the latest responses of endpoints that seem
slower than they know.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from epp.pool.pool import Pool
from epp.pool.slowdowns import Evidence
from epp.prediction.features import FeatureColumns, without_slowdown
from epp.scheduling.snapshot import Floats, Predictions, Snapshot
from model_store import ROW_NAMES

_BESIDE_EVERY_S = 1.0
# A predictor takes some 10,000 rows at once.
_MOST_CANDIDATES = 3_000
_PROMPT_TOKENS = 2048
_LENGTH, _PREFIX = ROW_NAMES.index("input_token_length"), ROW_NAMES.index("prefix_cache_score")
# Less than any accelerator takes: models of few samples see no difference, or one to the wrong side.
_LEAST_MS_PER_TOKEN = 1e-4


@dataclass(frozen=True, slots=True)
class Question:
    """`columns` [features, rows] begin with the candidates' own; answers are to be multiplied by `slowdown` [rows]."""

    columns: FeatureColumns
    slowdown: Floats | None = None
    has_more: bool = False
    evidence: Evidence | None = None


@dataclass(slots=True)
class Questions:
    """Tells the pool what it has learnt."""

    pool: Pool
    clock: Callable[[], float] = time.monotonic
    _more_at_s: float = field(default=-np.inf, init=False)

    def of(self, columns: FeatureColumns, candidates: Snapshot, *, wants_costs: bool) -> Question:
        """Build the question of a decision among `candidates`, whose `feature_columns` are `columns`.

        `wants_costs`: the strategy weighs costs. Other strategies are told what the models say, and no more.
        """
        if not wants_costs:
            return Question(columns)
        columns = without_slowdown(columns, candidates.slowdown)
        if not self._is_due(len(candidates)):
            return Question(columns, candidates.slowdown)
        parts, slowdowns = [columns, *_prompts(columns)], [candidates.slowdown] * 3
        evidence = self.pool.slowdowns.evidence(candidates.slots, candidates.tpot_bias)
        if evidence:
            slowed = evidence.slowdown != 1
            factors = evidence.slowdown[slowed]
            parts += [evidence.features, without_slowdown(evidence.features[:, slowed], factors)]
            slowdowns += [np.ones(len(slowed)), factors]
        return Question(np.concatenate(parts, axis=1), np.concatenate(slowdowns), True, evidence)

    def answered(self, question: Question, candidates: Snapshot, predictions: Predictions) -> Snapshot:
        """The candidates with their part of the answer, and what is in flight there where it was asked with costs."""
        if question.slowdown is None:
            return candidates.with_predictions(predictions)
        predictions = predictions.times(question.slowdown)
        if question.has_more:
            predictions = self._learn(question, candidates, predictions)
        return candidates.with_predictions(predictions, self.pool.tpot_slos(candidates.slots))

    def _is_due(self, count: int) -> bool:
        """Whether more is to be asked; says so once for each time."""
        now_s = self.clock()
        if now_s - self._more_at_s < _BESIDE_EVERY_S or count > _MOST_CANDIDATES:
            return False
        self._more_at_s = now_s
        return True

    def _learn(self, question: Question, candidates: Snapshot, predictions: Predictions) -> Predictions:
        """From what was asked beside the decision, whose own part is returned."""
        count = len(candidates)
        own = predictions.at(slice(0, count))
        ttft_ms = _middle(predictions.ttft_ms, predictions.ttft_median_ms)
        tpot_ms = _middle(predictions.tpot_ms, predictions.tpot_median_ms)
        uncached_ms, cached_ms = ttft_ms[count : 3 * count].reshape(2, count)
        per_token_ms = np.maximum((uncached_ms - cached_ms) / _PROMPT_TOKENS, _LEAST_MS_PER_TOKEN)
        self.pool.learn_costs(candidates.slots, per_token_ms, tpot_ms[:count])
        if question.evidence:
            is_tpot, slowed = question.evidence.is_tpot, question.evidence.slowdown != 1
            asked = np.concatenate([is_tpot, is_tpot[slowed]])
            said_ms = np.where(asked, tpot_ms[3 * count :], ttft_ms[3 * count :])
            plain_ms, slowed_ms = said_ms[: len(is_tpot)], said_ms[: len(is_tpot)].copy()
            slowed_ms[slowed] = said_ms[len(is_tpot) :]
            self.pool.slowdowns.learn(question.evidence, plain_ms, slowed_ms)
        return own


def _prompts(columns: FeatureColumns) -> tuple[FeatureColumns, FeatureColumns]:
    """The rows that ask for the price of a prompt: with none of it cached, and all."""
    uncached = columns.copy()
    uncached[_LENGTH], uncached[_PREFIX] = _PROMPT_TOKENS, 0.0
    cached = uncached.copy()
    cached[_PREFIX] = 1.0
    return uncached, cached


def _middle(value_ms: Floats, median_ms: Floats | None) -> Floats:
    return value_ms if median_ms is None else median_ms
