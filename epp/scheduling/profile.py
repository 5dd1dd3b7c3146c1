"""A profile: filters, weighted scorers and a picker, run in this order over the candidates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from epp.scheduling import guard
from epp.scheduling.plugin import Filter, Picker, Plugin, Scorer
from epp.scheduling.plugins.headroom import HeadroomReader
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Indices, Snapshot
from epp.scheduling.watch import PluginWatch


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    name: str
    scorer: Scorer
    weight: float


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    filters: tuple[Filter, ...]
    scorers: tuple[WeightedScorer, ...]
    picker: Picker

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        return (*self.filters, *(weighted.scorer for weighted in self.scorers), self.picker)

    @property
    def needs_predictions(self) -> bool:
        return any(plugin.needs_predictions for plugin in self.plugins)

    @property
    def slo_buffer_factor(self) -> float:
        """The factor that scales TPOT limits in this profile; 1 when no plugin decides by headroom."""
        return next((plugin.buffer_factor for plugin in self.plugins if isinstance(plugin, HeadroomReader)), 1.0)


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """A profile's choice. `picked` and `kept` index the snapshot's candidates; `scores` has one value per `kept`.

    `scorers` are those that were asked.
    """

    picked: Indices
    kept: Indices
    scores: Floats
    scores_by_plugin: Mapping[str, Floats]
    scorers: tuple[WeightedScorer, ...] = ()


def run_profile(
    profile: Profile,
    request: Request,
    candidates: Snapshot,
    rng: np.random.Generator,
    watch: PluginWatch | None = None,
    *,
    is_trial: bool = False,
) -> ProfileResult | None:
    """Return the profile's choice, or None when the filters leave no candidate. No scorer learns of a trial's."""
    candidates = _filtered(profile, request, candidates, rng, watch)
    if not len(candidates):
        return None
    total = np.zeros(len(candidates))
    by_plugin: dict[str, Floats] = {}
    for weighted in profile.scorers:
        scores = guard.score(weighted.scorer, request, candidates, rng)
        by_plugin[weighted.name] = scores
        if watch:
            watch.lap("Scorer", weighted.scorer, weighted.name)
        if weighted.weight:
            total += weighted.weight * scores
    picked = guard.pick(profile.picker, total, rng)
    if watch:
        watch.lap("Picker", profile.picker)
    for weighted in () if is_trial else profile.scorers:
        if type(weighted.scorer).decided is not Scorer.decided:
            guard.decided(weighted.scorer, request, candidates, int(picked[0]))
    return _result(candidates, picked, total, by_plugin, profile.scorers)


def run_at_random(
    profile: Profile, request: Request, candidates: Snapshot, rng: np.random.Generator, watch: PluginWatch | None = None
) -> ProfileResult | None:
    """Return one candidate that the filters leave, drawn at random, or None when they leave none."""
    candidates = _filtered(profile, request, candidates, rng, watch)
    count = len(candidates)
    return _result(candidates, np.array([int(rng.random() * count)]), np.zeros(count), {}) if count else None


def _filtered(
    profile: Profile, request: Request, candidates: Snapshot, rng: np.random.Generator, watch: PluginWatch | None
) -> Snapshot:
    for candidate_filter in profile.filters:
        if not len(candidates):
            break
        mask = guard.keep(candidate_filter, request, candidates, rng)
        if watch:
            watch.lap("Filter", candidate_filter)
        if not mask.all():
            candidates = candidates.take(mask.nonzero()[0])
    return candidates


def _result(
    candidates: Snapshot,
    picked: Indices,
    total: Floats,
    by_plugin: Mapping[str, Floats],
    scorers: tuple[WeightedScorer, ...] = (),
) -> ProfileResult:
    kept = candidates.positions
    if kept is None:
        return ProfileResult(picked, np.arange(len(candidates)), total, by_plugin, scorers)
    return ProfileResult(kept[picked], kept, total, by_plugin, scorers)
