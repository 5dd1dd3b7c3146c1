"""Bounds how long the gateway waits for a server's answer before it asks another one."""

from dataclasses import dataclass
from typing import Final

from epp.request.routed import RoutedRequest

# Envoy's router reads this header, if ext_proc's mutation rules let the picker set it. Once a server has sent response
# headers, the timeout no longer counts.
# https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter
HEADER: Final = "x-envoy-upstream-rq-per-try-timeout-ms"
# A pause of a server's process, a lost packet or a wrong prediction may take this long.
_LEAST_MS: Final = 2_000.0


@dataclass(frozen=True, slots=True)
class TryTimeout:
    """Allows each server `factor` times the TTFT predicted for the chosen one, and at least two seconds.

    Only streamed requests with a prediction are bounded: an answer in one piece starts at its end. The factor 0 bounds
    none.
    """

    factor: float = 0.0

    def headers(self, routed: RoutedRequest) -> dict[str, str]:
        """Return the header to add to the request, if its wait is bounded."""
        if not self.factor or not routed.parsed.is_stream:
            return {}
        predicted = routed.record.predicted
        # NaN where there is no prediction.
        if predicted is None or not predicted[0] >= 0:
            return {}
        return {HEADER: str(round(max(_LEAST_MS, self.factor * predicted[0])))}


NO_TRY_TIMEOUT: Final = TryTimeout()
