"""The scheduler turns a request and a snapshot into a decision. It knows nothing of gRPC, Kubernetes or HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from epp.scheduling import guard
from epp.scheduling.plugin import Admitter, Plugin, ProfileHandler
from epp.scheduling.plugins.attainment import Worth, worth
from epp.scheduling.plugins.headroom import Headroom, headroom
from epp.scheduling.plugins.prefix import PrefixParameters
from epp.scheduling.profile import Profile, ProfileResult, run_at_random, run_profile
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint, Predictions, Snapshot
from epp.scheduling.watch import PluginWatch

# Seconds that a shed client is told to wait; by then the pool has been scraped many times more.
_RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen endpoints, best first, with the data that explains the choice."""

    request: Request
    candidates: Snapshot
    profile: str
    wanted_profile: str
    result: ProfileResult
    slo_buffer_factor: float = 1.0
    response_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def headroom(self) -> Headroom | None:
        """The headroom of each candidate: objective minus prediction. None without predictions."""
        predictions = self.candidates.predictions
        if predictions is None:
            return None
        return headroom(self.request, self.candidates, predictions, self.slo_buffer_factor)

    @property
    def worth(self) -> Worth | None:
        """What a placement on each kept candidate gains and loses. None if no scorer of the profile weighs it."""
        if self.candidates.predictions is None or not any(one.scorer.needs_costs for one in self.result.scorers):
            return None
        kept = self.candidates.take(self.result.kept)
        if kept.predictions is None:
            return None
        return worth(self.request, kept, kept.predictions, self.slo_buffer_factor)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self.candidates.endpoints[i] for i in self.result.picked)

    @property
    def chosen(self) -> int:
        """The index of the first choice among the snapshot's candidates."""
        return int(self.result.picked[0])


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why there is no decision: no endpoint can take the request, or a plugin has shed the request."""

    kind: Literal["no-endpoint", "shed"]
    message: str
    retry_after_s: int | None = None
    plugin: str = ""


@dataclass(frozen=True)
class Scheduler:
    """The profiles, the handler that chooses a profile, the admitters, and the size of the prefix index.

    `predict` decides whether every request gets predictions or none does; None leaves this to the chosen profile.
    `plugins` holds the declared plugins by name. `notices` tell the operator which settings have no effect.
    """

    profiles: Mapping[str, Profile]
    handler: ProfileHandler
    prefix: PrefixParameters
    admitters: tuple[Admitter, ...] = ()
    plugins: Mapping[str, Plugin] = field(default_factory=dict)
    predict: bool | None = None
    notices: tuple[str, ...] = ()

    def wants_predictions(self, request: Request) -> bool:
        return self.predict if self.predict is not None else self._wanted(request) in self.predicted_profiles

    def schedule(
        self,
        request: Request,
        candidates: Snapshot,
        rng: np.random.Generator,
        watch: PluginWatch | None = None,
        *,
        at_random: bool = False,
        is_trial: bool = False,
    ) -> Decision | Refusal:
        """Return the decision, or a refusal with the reason. Without predictions, the fallback profile decides.

        `at_random` draws among the candidates that the profile's filters leave, and asks no scorer. `is_trial` tells
        no plugin what was decided, because nobody carries it out.
        """
        if not len(candidates):
            return Refusal("no-endpoint", "failed to find candidate pods for serving the request")
        wanted = self._wanted(request)
        if wanted not in self.profiles:
            return Refusal("no-endpoint", f"no scheduling profile is named {wanted!r}")
        if candidates.predictions is not None and _empty(candidates.predictions):
            candidates = candidates.without_predictions()
        for admitter in self.admitters:
            reason = guard.admit(admitter, request, candidates, rng)
            if watch:
                watch.lap("Admission", admitter)
            if reason is not None:
                return Refusal("shed", reason, _RETRY_AFTER_S, admitter.type_name)
        name = wanted
        if candidates.predictions is None and wanted in self.predicted_profiles:
            name = guard.fallback(self.handler, wanted, self._names)
        profile = self.profiles[name]
        if at_random:
            result = run_at_random(profile, request, candidates, rng, watch)
        else:
            result = run_profile(profile, request, candidates, rng, watch, is_trial=is_trial)
        if result is None:
            return Refusal("no-endpoint", f"no endpoint passes the filters of profile {name}")
        headers = self._response_headers(name, candidates.endpoints[int(result.picked[0])])
        return Decision(request, candidates, name, wanted, result, self._buffer_factors[name], headers)

    def _response_headers(self, profile: str, endpoint: Endpoint) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        for plugin in self._adding_headers[profile]:
            headers |= guard.response_headers(plugin, endpoint)
        return headers

    def _wanted(self, request: Request) -> str:
        return guard.choose(self.handler, request, self._names)

    @cached_property
    def wants_costs(self) -> bool:
        """True if any plugin reads the predicted costs of prompts on endpoints."""
        return any(plugin.needs_costs for profile in self.profiles.values() for plugin in profile.plugins)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.profiles)

    @cached_property
    def _adding_headers(self) -> Mapping[str, tuple[Plugin, ...]]:
        """The plugins of each profile that add response headers."""
        return {
            name: tuple(p for p in profile.plugins if type(p).response_headers is not Plugin.response_headers)
            for name, profile in self.profiles.items()
        }

    @cached_property
    def _buffer_factors(self) -> Mapping[str, float]:
        return {name: profile.slo_buffer_factor for name, profile in self.profiles.items()}

    @cached_property
    def predicted_profiles(self) -> frozenset[str]:
        """The names of profiles that wait for predictions; all profiles when an admitter needs predictions."""
        everywhere = any(admitter.needs_predictions for admitter in self.admitters)
        return frozenset(name for name, profile in self.profiles.items() if everywhere or profile.needs_predictions)


def _empty(predictions: Predictions) -> bool:
    """Return whether no latency of any candidate is known, which is as useless as no answer."""
    return bool(np.isnan(predictions.ttft_ms).all() and np.isnan(predictions.tpot_ms).all())
