"""Decisions that nobody carries out: about a request that isn't sent, and about a past one under other conditions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from epp.exceptions import PredictionUnavailableError
from epp.prediction.features import feature_columns
from epp.request.decisions import Record
from epp.request.director import Director
from epp.scheduling.configuration.parameters import Share, Weight
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Refusal, Scheduler
from epp.scheduling.snapshot import Predictions, Snapshot

Objective = Annotated[float, Meta(gt=0, le=1e9)] | None
T = TypeVar("T")
# The name of a made-up request in what explains its decision.
_TRIAL = "trial"


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A made-up request. Objectives are in ms. `cached` is the share of its prompt that endpoints have cached.

    `cached_on` names the only endpoint that has it; by default, all have.
    """

    input_tokens: Annotated[int, Meta(ge=1, le=10_000_000)]
    cached: Share = 0.0
    cached_on: Annotated[str, Meta(max_length=500)] = ""
    slo_ttft_ms: Objective = None
    slo_tpot_ms: Objective = None
    model: Annotated[str, Meta(max_length=500)] = ""


class WhatIf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Other conditions of a past request. What isn't given stays as it was; an objective of null is none.

    `weights` are by the name of a scorer. `by_prediction` says whether predictions may decide.
    """

    request_id: Annotated[str, Meta(max_length=1000)]
    slo_ttft_ms: Objective | UnsetType = UNSET
    slo_tpot_ms: Objective | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] | UnsetType = UNSET
    by_prediction: bool | UnsetType = UNSET
    weights: Annotated[dict[str, Weight], Meta(max_length=100)] = {}


async def ask(director: Director, asked: Asked) -> Record | Refusal:
    """Decide about a request as the pool is now, without sending it. ValueError names a wrong field."""
    request = Request(
        _TRIAL,
        asked.model,
        asked.input_tokens,
        asked.slo_ttft_ms,
        asked.slo_tpot_ms,
        prediction_based=True,
    )
    candidates = _with_prefix(director.books.pool.snapshot(request), asked)
    error: str | None = "prediction is not enabled"
    if director.latency is not None:
        try:
            candidates, error = await _predicted(director, request, candidates), None
        except PredictionUnavailableError as failure:
            error = str(failure)
    return _decided(director.scheduler, request, candidates, error)


def decide_again(scheduler: Scheduler, record: Record, what_if: WhatIf) -> Record | Refusal:
    """Decide about a past request as the pool was then. ValueError names a scorer that no profile has."""
    decision = record.decision
    was = decision.request
    request = Request(
        was.id,
        was.model,
        was.input_tokens,
        _given(what_if.slo_ttft_ms, was.slo_ttft_ms),
        _given(what_if.slo_tpot_ms, was.slo_tpot_ms),
        _given(what_if.by_prediction, was.prediction_based),
        _given(what_if.priority, was.priority),
        was.media_items,
    )
    candidates, error = decision.candidates, record.prediction_error
    if candidates.predictions is not None and error is not None:
        if what_if.by_prediction is True:
            # They were there, and were doubted.
            error = None
        else:
            candidates = candidates.without_predictions()
    return _decided(_reweighted(scheduler, what_if.weights), request, candidates, error)


def _with_prefix(candidates: Snapshot, asked: Asked) -> Snapshot:
    if not asked.cached_on:
        return replace(candidates, prefix_score=np.full(len(candidates), asked.cached))
    holds = np.array([endpoint.name == asked.cached_on for endpoint in candidates.endpoints], dtype=bool)
    if not holds.any():
        raise ValueError(f"cached_on: no endpoint that takes requests is called {asked.cached_on!r}")
    return replace(candidates, prefix_score=np.where(holds, asked.cached, 0.0))


async def _predicted(director: Director, request: Request, candidates: Snapshot) -> Snapshot:
    if director.latency is None or not len(candidates):
        return candidates
    columns = feature_columns(request, candidates)
    question = director.questions.build(columns, candidates, wants_costs=director.scheduler.wants_costs)
    found = director.latency.predict(question.columns)
    predictions = found if isinstance(found, Predictions) else await found
    return director.questions.add_predictions(question, candidates, predictions)


def _decided(scheduler: Scheduler, request: Request, candidates: Snapshot, error: str | None) -> Record | Refusal:
    # Always the same draws, so that the same question has the same answer.
    decision = scheduler.schedule(request, candidates, np.random.default_rng(0), is_trial=True)
    return decision if isinstance(decision, Refusal) else Record(decision, 0.0, error)


def _reweighted(scheduler: Scheduler, weights: Mapping[str, float]) -> Scheduler:
    """Return a scheduler with these weights in every profile that has such scorers."""
    known = {weighted.name for profile in scheduler.profiles.values() for weighted in profile.scorers}
    for name in weights:
        if name not in known:
            raise ValueError(f"weights: no scorer is called {name!r}; there are {', '.join(sorted(known))}")
    profiles = {
        name: replace(
            profile,
            scorers=tuple(replace(one, weight=weights.get(one.name, one.weight)) for one in profile.scorers),
        )
        for name, profile in scheduler.profiles.items()
    }
    return replace(scheduler, profiles=profiles)


def _given(value: T | UnsetType, was: T) -> T:
    return was if isinstance(value, UnsetType) else value
