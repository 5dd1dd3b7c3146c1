"""Call plugins so that an error in a plugin costs no request.

The first error of each plugin type is logged, every error is counted, and a default replaces the plugin's answer.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from epp.scheduling.plugin import Admitter, Filter, Picker, Plugin, ProfileHandler, Scorer
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Endpoint, Floats, Indices, Snapshot

logger = logging.getLogger("headroom.epp")

FAULTS: Counter[str] = Counter()
"""Count of plugin errors since the process began, by plugin type."""


def keep(candidate_filter: Filter, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
    """Return the filter's mask; keep all candidates when the filter fails."""
    try:
        mask = candidate_filter.keep(request, candidates, rng)
        if mask.dtype == bool and mask.shape == (len(candidates),):
            return mask
        problem: object = f"expected a mask of {len(candidates)} bools, got {mask.dtype} of shape {mask.shape}"
    except Exception as error:
        problem = error
    _note(candidate_filter, problem, "all candidates stay")
    return np.ones(len(candidates), dtype=bool)


def score(scorer: Scorer, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
    """Return the scorer's scores clipped to [0, 1]. A NaN becomes 0; when the scorer fails, all scores are 0."""
    try:
        scores = np.minimum(np.maximum(scorer.score(request, candidates, rng), 0.0), 1.0)
        if scores.shape == (len(candidates),):
            if math.isnan(np.add.reduce(scores)):
                _note(scorer, "some scores are NaN", "these are 0")
                scores = np.nan_to_num(scores)
            return scores
        problem: object = f"expected {len(candidates)} scores, got shape {scores.shape}"
    except Exception as error:
        problem = error
    _note(scorer, problem, "its scores are 0")
    return np.zeros(len(candidates))


def decided(scorer: Scorer, request: Request, candidates: Snapshot, chosen: int) -> None:
    try:
        scorer.decided(request, candidates, chosen)
    except Exception as error:
        _note(scorer, error, "the scorer misses a decision")


def response_headers(plugin: Plugin, endpoint: Endpoint) -> Mapping[str, str]:
    try:
        return {str(name): str(value) for name, value in plugin.response_headers(endpoint).items()}
    except Exception as error:
        _note(plugin, error, "the response gets none of the plugin's headers")
    return {}


def pick(picker: Picker, scores: Floats, rng: np.random.Generator) -> Indices:
    """Return the picker's choice; the highest score when the picker fails."""
    try:
        picked = np.asarray(picker.pick(scores, rng))
        fits = picked.ndim == 1 and len(picked) and picked.dtype.kind == "i"
        if fits and all(0 <= index < len(scores) for index in picked.tolist()):
            return picked.astype(np.intp, copy=False)
        problem: object = f"expected integers below {len(scores)}, got {picked.tolist()}"
    except Exception as error:
        problem = error
    _note(picker, problem, "the highest score is picked")
    return np.array([int(scores.argmax())])


def choose(handler: ProfileHandler, request: Request, profiles: tuple[str, ...]) -> str:
    """Return the name of the profile that the handler chooses; the first profile when the handler fails."""
    try:
        name: object = handler.choose(request, profiles)
        if isinstance(name, str):
            return name
        problem: object = f"expected a profile name, got {name!r}"
    except Exception as error:
        problem = error
    _note(handler, problem, f"profile {profiles[0]} decides")
    return profiles[0]


def fallback(handler: ProfileHandler, wanted: str, profiles: tuple[str, ...]) -> str:
    """Return the profile that the handler falls back to; the wanted profile when the handler fails."""
    try:
        name: object = handler.fallback(wanted, profiles)
        if isinstance(name, str) and name in profiles:
            return name
        problem: object = f"expected one of {', '.join(profiles)}, got {name!r}"
    except Exception as error:
        problem = error
    _note(handler, problem, f"profile {wanted} decides")
    return wanted


def admit(admitter: Admitter, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
    """Return why the request is shed, or None to admit it. A request is admitted when the admitter fails."""
    try:
        return admitter.admit(request, candidates, rng)
    except Exception as error:
        _note(admitter, error, "the request is admitted")
    return None


def _note(plugin: Plugin, problem: object, consequence: str) -> None:
    name = plugin.type_name or type(plugin).__qualname__
    FAULTS[name] += 1
    if FAULTS[name] == 1:
        error = problem if isinstance(problem, Exception) else None
        logger.error(
            "plugin %s failed: %s (%r); later failures are counted", name, consequence, problem, exc_info=error
        )
