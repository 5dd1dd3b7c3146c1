"""What the live page asks for, over all workers of the picker."""

import asyncio
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from epp.live.pool_columns import pool_columns
from epp.live.trainer_history import TrainerHistory
from epp.live.trial import WhatIf, decide_again
from epp.request.decisions import Record, explain
from epp.request.director import Director
from epp.request.outcome_journal import row_of
from epp.request.recent_counts import STEP_S, RecentCounts, Step, together
from epp.request.wording import in_words
from epp.scheduling.scheduler import Refusal
from epp.workers.siblings import Siblings

# Seconds for which an event serves every page that is open.
_EVENT_S = 0.9
# Decisions in an event.
_DECISIONS = 40
# The newest two steps still change: the one that is under way, and the one before it on other workers.
_CHANGING_S = 2 * STEP_S
STEPS_PATH, DECISIONS_PATH, WHAT_IF_PATH = "/live/api/steps", "/live/api/decisions", "/live/api/what-if"


@dataclass(slots=True)
class View:
    """The picker, as its live page sees it. With `siblings`, it tells of all workers.

    `comparison` is a file of other policies' figures that a command keeps writing, for the page to show.
    """

    pool_name: str
    director: Director
    counts: RecentCounts
    trainer: TrainerHistory | None = None
    comparison: Path | None = None
    siblings: Siblings | None = None
    _event: bytes = field(default=b"", init=False)
    _event_at_s: float = field(default=float("-inf"), init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def state(self) -> dict[str, Any]:
        """Return everything that a page needs at its start."""
        scheduler = self.director.scheduler
        return {
            **await self._now(0.0),
            "pool_name": self.pool_name,
            "version": version("headroom"),
            "is_shadow": self.director.is_shadow,
            "has_predictions": self.director.latency is not None,
            "has_comparison": self.comparison is not None,
            "step_s": STEP_S,
            "profiles": {
                name: {
                    "filters": [one.type_name for one in profile.filters],
                    "scorers": [
                        {"name": one.name, "type": one.scorer.type_name, "weight": one.weight}
                        for one in profile.scorers
                    ],
                    "picker": profile.picker.type_name,
                }
                for name, profile in scheduler.profiles.items()
            },
        }

    async def event(self) -> bytes:
        """Return what is new, as JSON. Pages that ask within a second share an answer."""
        async with self._turn:
            if time.monotonic() - self._event_at_s >= _EVENT_S:
                self._event = msgspec.json.encode(await self._now(time.time() - _CHANGING_S))
                self._event_at_s = time.monotonic()
            return self._event

    async def _now(self, since: float) -> dict[str, Any]:
        steps, decisions = await asyncio.gather(self._steps(since), self.decisions(_DECISIONS))
        return {
            "at": time.time(),
            "pool": pool_columns(self.director.books.pool),
            "steps": [_step(step) for step in steps],
            "decisions": decisions,
        }

    async def _steps(self, since: float) -> list[Step]:
        own = self.counts.since(since)
        if self.siblings is None:
            return own
        answers = await self.siblings.ask_all(f"{STEPS_PATH}?since={since}")
        return together([own, *(msgspec.msgpack.decode(answer, type=list[Step]) for answer in answers)])

    async def decisions(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest decisions in short, the newest first."""
        found = [_in_short(record) for record in self.director.books.decisions.newest(limit)]
        if self.siblings is None:
            return found
        for answer in await self.siblings.ask_all(f"{DECISIONS_PATH}?limit={limit}"):
            found += msgspec.json.decode(answer)["decisions"]
        return sorted(found, key=lambda one: -float(one["decided_at"]))[:limit]

    async def what_if(self, asked: WhatIf, body: bytes) -> bytes | None:
        """Return a past decision and the one under other conditions, as JSON. None if no worker remembers it.

        ValueError names a wrong field. `body` is what was asked, for other workers.
        """
        record = next(self.director.books.decisions.newest(1, asked.request_id), None)
        if record is not None:
            again = decide_again(self.director.scheduler, record, asked)
            answer = {"was": await explained(record), "would_be": await explained(again)}
            return msgspec.json.encode(answer)
        if self.siblings is None:
            return None
        return next(iter(await self.siblings.ask_all(WHAT_IF_PATH, body)), None)


async def explained(found: Record | Refusal) -> dict[str, Any]:
    """Return a decision with its words, or the reason of a refusal."""
    if isinstance(found, Refusal):
        return {"refused": found.message}
    # A thousand candidates take tens of milliseconds, which requests shouldn't wait for.
    return await asyncio.to_thread(_explained, found)


def _explained(record: Record) -> dict[str, Any]:
    told = explain(record)
    return {"decision": told, "words": list(in_words(told))}


def _step(step: Step) -> dict[str, Any]:
    groups = [
        {"profile": profile, "objective": objective, **msgspec.structs.asdict(group)}
        for (profile, objective), group in step.groups.items()
    ]
    return {"at": step.at, "groups": groups, "sources": step.sources, "refused": step.refused}


def _in_short(record: Record) -> dict[str, Any]:
    request, row = record.decision.request, row_of(record)
    return {
        "request_id": request.id,
        "input_tokens": request.input_tokens,
        **msgspec.to_builtins(row),
        "is_met": row.is_met,
    }
