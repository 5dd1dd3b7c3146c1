"""What prediction would have chosen for a request that is routed without it."""

from dataclasses import dataclass
from typing import Literal

from epp.scheduling.plugins.attainment import chances
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Decision, Refusal


@dataclass(frozen=True, slots=True)
class Shadow:
    """The choice by prediction beside the one that was made. `endpoint` is empty if the request would have been shed.

    `chance_made` and `chance` are the predicted probabilities that the request meets its objectives on the endpoint
    that was chosen, and on the one that prediction would have chosen.
    """

    endpoint: str
    chance_made: float
    chance: float

    def choice(self, made: str) -> Literal["same", "another", "shed"]:
        """Say how the choice compares with the endpoint that was chosen."""
        if not self.endpoint:
            return "shed"
        return "same" if self.endpoint == made else "another"


def shadow_of(request: Request, made: Decision, by_prediction: Decision | Refusal) -> Shadow | None:
    """Compare both decisions of a request. None if nothing was predicted for it."""
    predictions = made.candidates.predictions
    if predictions is None:
        return None
    found = chances(request, made.candidates, predictions)
    if isinstance(by_prediction, Refusal):
        return Shadow("", float(found[made.chosen]), 0.0)
    if by_prediction.profile == made.profile:
        return None
    chosen = by_prediction.chosen
    return Shadow(by_prediction.candidates.endpoints[chosen].name, float(found[made.chosen]), float(found[chosen]))
