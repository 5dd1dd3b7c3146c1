"""The whole decision, knowing nothing of gRPC, Kubernetes or HTTP: a request and a snapshot in, a decision out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from epp.scheduling.plugin import ProfileHandler
from epp.scheduling.plugins.prefix import PrefixCacheScorer
from epp.scheduling.profile import Profile, ProfileResult, run_profile
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint, Snapshot


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice, best endpoint first, with all that explains it."""

    request: Request
    pool: Snapshot
    profile: str
    wanted_profile: str
    result: ProfileResult

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self.pool.endpoints[i] for i in self.result.picked)

    @property
    def chosen(self) -> int:
        """The index of the first choice among the snapshot's candidates."""
        return int(self.result.picked[0])


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Profiles, who chooses among them, and how the prefix index is to be sized."""

    profiles: Mapping[str, Profile]
    handler: ProfileHandler
    prefix: PrefixCacheScorer

    def wants_predictions(self, request: Request) -> bool:
        return self.profiles[self._wanted(request)].needs_predictions

    def schedule(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Decision | None:
        """The decision, or None when no candidate is left. Without predictions, the handler's fallback decides."""
        wanted = self._wanted(request)
        name = wanted
        if self.profiles[wanted].needs_predictions and pool.predictions is None:
            name = self.handler.fallback(tuple(self.profiles))
        result = run_profile(self.profiles[name], request, pool, rng)
        if result is None:
            return None
        return Decision(request, pool, name, wanted, result)

    def _wanted(self, request: Request) -> str:
        return self.handler.choose(request, tuple(self.profiles))
