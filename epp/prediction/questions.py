"""Build the questions to the latency models for a decision, and learn from the answers.

At most once a second, a question also asks for more than the decision needs:
- The cost of a prompt on each candidate under its present load. Two made-up requests differ only in that one finds its
  whole prompt cached. The difference of their TTFTs is the cost of the prompt.
- Predictions for the latest responses of endpoints that seem slower than the models know.
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

# Least seconds between questions that ask for more than the decision.
_BESIDE_EVERY_S = 1.0
# Ask for more only up to this many candidates, since a predictor takes about 10,000 rows at once.
_MOST_CANDIDATES = 3_000
# Tokens of the made-up prompt.
_PROMPT_TOKENS = 2048
_LENGTH, _PREFIX = ROW_NAMES.index("input_token_length"), ROW_NAMES.index("prefix_cache_score")
# Least cost of a prompt in ms per token, less than any accelerator takes. Models of few samples may predict 0 or less.
_LEAST_MS_PER_TOKEN = 1e-4


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the models. `columns` is [features, rows], and the candidates' own rows come first.

    The answers are to be multiplied by `slowdown` [rows].
    """

    columns: FeatureColumns
    slowdown: Floats | None = None
    has_more: bool = False
    evidence: Evidence | None = None


@dataclass(slots=True)
class Questions:
    """Builds questions, and passes what the answers teach on to the pool."""

    pool: Pool
    clock: Callable[[], float] = time.monotonic
    _more_at_s: float = field(default=-np.inf, init=False)

    def build(self, columns: FeatureColumns, candidates: Snapshot, *, wants_costs: bool) -> Question:
        """Build the question of a decision among `candidates`, whose `feature_columns` are `columns`.

        `wants_costs`: the strategy weighs costs. Other strategies get the models' plain predictions only.
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

    def add_predictions(self, question: Question, candidates: Snapshot, predictions: Predictions) -> Snapshot:
        """Return the candidates with their predictions. With costs, add the TPOT objectives in flight."""
        if question.slowdown is None:
            return candidates.with_predictions(predictions)
        predictions = predictions.times(question.slowdown)
        if question.has_more:
            predictions = self._learn(question, candidates, predictions)
        return candidates.with_predictions(predictions, self.pool.tpot_slos(candidates.slots))

    def _is_due(self, count: int) -> bool:
        """Return whether to ask for more than the decision now; a True begins the next interval."""
        now_s = self.clock()
        if now_s - self._more_at_s < _BESIDE_EVERY_S or count > _MOST_CANDIDATES:
            return False
        self._more_at_s = now_s
        return True

    def _learn(self, question: Question, candidates: Snapshot, predictions: Predictions) -> Predictions:
        """Learn from the additional rows, and return the predictions of the candidates' own rows."""
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
    """Return the rows that ask for the cost of a prompt: one set without a cached prefix, one fully cached."""
    uncached = columns.copy()
    uncached[_LENGTH], uncached[_PREFIX] = _PROMPT_TOKENS, 0.0
    cached = uncached.copy()
    cached[_PREFIX] = 1.0
    return uncached, cached


def _middle(value_ms: Floats, median_ms: Floats | None) -> Floats:
    return value_ms if median_ms is None else median_ms
