"""Session affinity: a response header names the endpoint, and the client sends the header back."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from epp.scheduling.plugin import Filter, Plugin, Scorer, plugin
from epp.scheduling.plugins.labels import by_endpoint
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Endpoint, Floats, Snapshot


class EncodedEndpointHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of the request and response header that carries the endpoint's name in base64."""

    header: str = "x-session-token"


class _SessionAffinity(Plugin, frozen=True):
    encoded_endpoint_header_config: EncodedEndpointHeader = EncodedEndpointHeader()
    strategy: str = "encoded_endpoint_header"
    session_id_config: dict[str, Any] | None = None
    profile_name: str = ""

    unsupported: ClassVar[dict[str, str]] = {
        "strategy": "sessions aren't remembered here; leave it out, and a response header names the endpoint",
        "sessionIdConfig": "sessions aren't remembered here; leave it out",
        "profileName": "one endpoint serves the whole request here; leave it out",
    }

    @property
    def header(self) -> str:
        return self.encoded_endpoint_header_config.header.strip().lower() or EncodedEndpointHeader().header

    def response_headers(self, endpoint: Endpoint) -> Mapping[str, str]:
        return {self.header: base64.b64encode(endpoint.name.encode()).decode()}

    def holder(self, request: Request, candidates: Snapshot) -> Bools:
        """Return a mask of the endpoint that served the session last, if the endpoint is a candidate."""
        token = request.headers.get(self.header, "")
        try:
            name = base64.b64decode(token, validate=True).decode()
        except (binascii.Error, ValueError):
            name = ""
        holder: Bools = by_endpoint(self, candidates, _names) == name
        return holder if name else np.zeros(len(candidates), dtype=bool)


@plugin("session-affinity-scorer")
class SessionAffinityScorer(_SessionAffinity, Scorer, frozen=True):
    """Scores 1 for the endpoint that served the session last, as the request's header says, and 0 for all others."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        return self.holder(request, candidates).astype(np.float64)


@plugin("session-affinity-filter")
class SessionAffinityFilter(_SessionAffinity, Filter, frozen=True):
    """Keeps the endpoint that the request's header names as the session's last; all when it is no candidate."""

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        holder = self.holder(request, candidates)
        return holder if holder.any() else np.ones(len(candidates), dtype=bool)


def _names(endpoints: tuple[Endpoint, ...]) -> NDArray[np.str_]:
    return np.array([endpoint.name for endpoint in endpoints])
