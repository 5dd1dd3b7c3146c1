"""Measurements beside other traffic: wait for an idle server, measure, and repeat what others have disturbed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.calibration.exceptions import DisturbedError, MeasureError
from lab.calibration.server.asks import Ask, TimedServer, Timeline

# Seconds between looks at a busy server, and the seconds for which it may lag behind what its clients saw.
_LOOK_S = 0.5
_LAG_LOOKS = 10
_LAG_S = 0.05


@dataclass
class Guard:
    """Runs requests on an idle server. A run during which others came is repeated.

    `tell` gets a line for the operator. `patience_s` is how long the server may be busy in all.
    """

    server: TimedServer
    tell: Callable[[str], None]
    patience_s: float = 120.0
    disturbed: int = field(default=0, init=False)
    waited_s: float = field(default=0.0, init=False)

    async def run(self, rounds: Sequence[Sequence[Ask]]) -> list[list[Timeline]]:
        """Run the rounds one after the other; the requests of one round together."""
        while True:
            await self.until_idle()
            before = (await self.server.page()).ended
            try:
                found = [await self.server.run(asks) for asks in rounds]
            except DisturbedError:
                pass
            else:
                own = sum(len(asks) for asks in rounds)
                if await self._has_ended(before + own):
                    return found
            self.disturbed += 1
            self.tell("other requests came; measuring this again")
            self._wait(1.0)
            await self.server.pause(1.0)

    async def until_idle(self) -> None:
        told = False
        while present := (await self.server.page()).present:
            if not told:
                self.tell(f"waiting: the server has {present} other requests")
                told = True
            self._wait(_LOOK_S)
            await self.server.pause(_LOOK_S)

    async def _has_ended(self, expected: int) -> bool:
        """Return whether exactly the own requests have ended, and no others are there."""
        for _ in range(_LAG_LOOKS):
            page = await self.server.page()
            if page.ended >= expected and not page.present:
                return page.ended == expected
            await self.server.pause(_LAG_S)
        return False

    def _wait(self, seconds: float) -> None:
        self.waited_s += seconds
        if self.waited_s > self.patience_s:
            raise MeasureError(
                f"the server was busy for {self.patience_s:.0f} s: measure while it has less traffic, "
                "or raise --patience"
            )
