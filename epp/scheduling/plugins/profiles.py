"""Profile handlers choose the profile that serves a request."""

from collections.abc import Sequence

from epp.scheduling.plugin import ProfileHandler, plugin
from epp.scheduling.request import Request

_DEFAULT, _SLO = "default", "slo"


@plugin("single-profile-handler")
class SingleProfileHandler(ProfileHandler, frozen=True):
    """Chooses the only profile."""

    def choose(self, request: Request, profiles: Sequence[str]) -> str:
        return profiles[0]

    def fallback(self, wanted: str, profiles: Sequence[str]) -> str:
        return wanted

    def check(self, profiles: Sequence[str]) -> None:
        if len(profiles) != 1:
            raise ValueError(f"single-profile-handler needs exactly one profile, found {len(profiles)}")


@plugin("slo-aware-profile-handler")
class SloAwareProfileHandler(ProfileHandler, frozen=True):
    """Chooses profile `slo` for a request that asks for prediction, and `default` for every other.

    A configuration without a profile `default` gets one that scores queue, KV cache and prefix with equal weights.
    """

    def choose(self, request: Request, profiles: Sequence[str]) -> str:
        return _SLO if request.prediction_based else _DEFAULT

    def fallback(self, wanted: str, profiles: Sequence[str]) -> str:
        return _DEFAULT

    def check(self, profiles: Sequence[str]) -> None:
        if _SLO not in profiles:
            raise ValueError("slo-aware-profile-handler needs a profile named slo")


@plugin("header-profile-handler")
class HeaderProfileHandler(ProfileHandler, frozen=True):
    """Chooses the profile named by the header `headerName`, or `defaultProfile` without it; a single profile always.

    A request that names an unknown profile is refused.
    """

    header_name: str = "EPP-Profile"
    default_profile: str = "decode"

    def choose(self, request: Request, profiles: Sequence[str]) -> str:
        if len(profiles) == 1:
            return profiles[0]
        return request.headers.get(self.header_name.strip().lower(), "").strip() or self.default_profile

    def fallback(self, wanted: str, profiles: Sequence[str]) -> str:
        return wanted

    def check(self, profiles: Sequence[str]) -> None:
        if len(profiles) > 1 and self.default_profile not in profiles:
            raise ValueError(f"header-profile-handler: defaultProfile {self.default_profile!r} names no profile")
