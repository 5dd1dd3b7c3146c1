"""The whole decision, knowing nothing of gRPC, Kubernetes or HTTP: a request and a snapshot in, a decision out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from epp.scheduling import guard
from epp.scheduling.plugin import Admitter, Plugin, ProfileHandler
from epp.scheduling.plugins.headroom import Headroom, headroom
from epp.scheduling.plugins.prefix import PrefixParameters
from epp.scheduling.profile import Profile, ProfileResult, run_profile
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint, Predictions, Snapshot
from epp.scheduling.watch import PluginWatch

# What a shed client is told to wait: the pool's metrics are some hundred scrapes older then.
_RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice, best endpoint first, with all that explains it."""

    request: Request
    candidates: Snapshot
    profile: str
    wanted_profile: str
    result: ProfileResult
    slo_buffer_factor: float = 1.0
    response_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def headroom(self) -> Headroom | None:
        """What the predictions leave of the objectives, for each candidate; None without predictions."""
        predictions = self.candidates.predictions
        if predictions is None:
            return None
        return headroom(self.request, self.candidates, predictions, self.slo_buffer_factor)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self.candidates.endpoints[i] for i in self.result.picked)

    @property
    def chosen(self) -> int:
        """The index of the first choice among the snapshot's candidates."""
        return int(self.result.picked[0])


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no decision: no endpoint can take the request, or a plugin has shed it to spare the others."""

    kind: Literal["no-endpoint", "shed"]
    message: str
    retry_after_s: int | None = None
    plugin: str = ""


@dataclass(frozen=True)
class Scheduler:
    """Profiles, who chooses among them, who may shed, and how the prefix index is to be sized.

    `predict` says whether every request gets predictions, or none; None leaves it to the profile that is chosen.
    `plugins` are the declared ones by name, `notices` what an operator should know of the configuration.
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
        self, request: Request, candidates: Snapshot, rng: np.random.Generator, watch: PluginWatch | None = None
    ) -> Decision | Refusal:
        """The decision, or why there is none. Without predictions, the handler's fallback decides."""
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
        result = run_profile(self.profiles[name], request, candidates, rng, watch)
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
        """Whether any plugin reads what prompts cost on endpoints."""
        return any(plugin.needs_costs for profile in self.profiles.values() for plugin in profile.plugins)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.profiles)

    @cached_property
    def _adding_headers(self) -> Mapping[str, tuple[Plugin, ...]]:
        """The plugins of each profile that say something in responses."""
        return {
            name: tuple(p for p in profile.plugins if type(p).response_headers is not Plugin.response_headers)
            for name, profile in self.profiles.items()
        }

    @cached_property
    def _buffer_factors(self) -> Mapping[str, float]:
        return {name: profile.slo_buffer_factor for name, profile in self.profiles.items()}

    @cached_property
    def predicted_profiles(self) -> frozenset[str]:
        """The profiles that should wait for predictions; all of them when an admitter needs some."""
        everywhere = any(admitter.needs_predictions for admitter in self.admitters)
        return frozenset(name for name, profile in self.profiles.items() if everywhere or profile.needs_predictions)


def _empty(predictions: Predictions) -> bool:
    """Whether no latency of any candidate is known: as good as no answer."""
    return bool(np.isnan(predictions.ttft_ms).all() and np.isnan(predictions.tpot_ms).all())
