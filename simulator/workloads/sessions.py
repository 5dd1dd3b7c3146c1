"""Conversations of several turns over the system prompts of applications.

A prompt is the application's system prompt, the session's document (if any), all earlier turns, and the user's new
message. A fixed number of sessions is alive, so caches need to hold the same amount at any rate. Each request is the
next turn of one of these sessions. A new session follows each one that ends.
"""

from dataclasses import dataclass

import numpy as np

from simulator.workloads.draw import Ints, Requests, stream
from simulator.workloads.synthetic import Lognormal

HASH_TOKENS = 128
MAX_TURNS = 20
# Piece ids reserved for each application and each session.
_PIECES = 1 << 20
# Requests between two turns of a session, in multiples of the sessions alive. The lower bound leaves time for the
# answer, which must come before the next turn.
_LEAST_GAP, _LARGEST_GAP = 0.5, 1.5


@dataclass(frozen=True, slots=True)
class Sessions:
    """The shape of a workload of sessions.

    `system_tokens` is the mean over applications. The n-th application is used 1/n times as often as the first.
    """

    applications: int
    system_tokens: int
    alive: int
    mean_turns: float
    user: Lognormal
    answer: Lognormal
    document: Lognormal | None = None


@dataclass(frozen=True, slots=True)
class _Turns:
    """Columns over the requests in order: the session, its application, and the lengths."""

    session: Ints
    application: Ints
    prompt_tokens: Ints
    output_tokens: Ints


def draw_sessions(shape: Sessions, seed: int, count: int) -> Requests:
    """Return the first `count` turns. A smaller `count` gives a prefix of the same turns."""
    system_tokens = _system_tokens(shape, seed)
    turns = _turns(shape, system_tokens, seed, count)
    shared = (system_tokens // HASH_TOKENS)[turns.application]
    hashes = _hashes(turns, shared, shape.applications)
    return Requests(turns.prompt_tokens, turns.output_tokens, hashes, turns.session)


def _system_tokens(shape: Sessions, seed: int) -> Ints:
    spread = stream(seed, "system prompts").uniform(0.5, 1.5, shape.applications)
    return np.rint(shape.system_tokens * spread).astype(np.int64)


def _turns(shape: Sessions, system_tokens: Ints, seed: int, count: int) -> _Turns:
    """Draw turns as cells of a table. A column is a slot for a session, a row is a turn.

    A session fills some consecutive rows of its column. The first `MAX_TURNS` rows are the history of sessions that
    began before the first request.
    """
    # Enough rows for the extreme case: one slot has the smallest gaps while the last request comes latest.
    rows = int(_LARGEST_GAP / _LEAST_GAP * count / shape.alive) + 8
    table = (MAX_TURNS + rows, shape.alive)
    user = shape.user.draw(stream(seed, "user"), table)
    answer = shape.answer.draw(stream(seed, "answer"), table)
    row = np.arange(table[0])[:, None]
    begins = stream(seed, "sessions").random(table) < 1 / shape.mean_turns
    first = row - (row - np.maximum.accumulate(np.where(begins, row, 0), axis=0)) % MAX_TURNS
    said = np.cumsum(user + answer, axis=0) - (user + answer)
    application = _applications(shape, seed, table)
    column = np.arange(shape.alive)[None, :]
    prompt = system_tokens[application[first, column]] + said - said[first, column] + user
    if shape.document:
        prompt += shape.document.draw(stream(seed, "document"), table)[first, column]
    order = _order(shape, seed, (rows, shape.alive), count)
    return _Turns(
        session=(first * shape.alive + column)[MAX_TURNS:].ravel()[order],
        application=application[first, column][MAX_TURNS:].ravel()[order],
        prompt_tokens=prompt[MAX_TURNS:].ravel()[order],
        output_tokens=answer[MAX_TURNS:].ravel()[order],
    )


def _applications(shape: Sessions, seed: int, table: tuple[int, int]) -> Ints:
    share = 1 / np.arange(1, shape.applications + 1)
    drawn = stream(seed, "applications").random(table)
    return np.minimum(np.searchsorted(np.cumsum(share) / share.sum(), drawn), shape.applications - 1)


def _order(shape: Sessions, seed: int, table: tuple[int, int], count: int) -> Ints:
    gaps = stream(seed, "turns").uniform(_LEAST_GAP, _LARGEST_GAP, table)
    gaps[0] -= _LEAST_GAP
    return np.argsort(np.cumsum(gaps, axis=0).ravel(), kind="stable")[:count]


def _hashes(turns: _Turns, shared: Ints, applications: int) -> list[tuple[int, ...]]:
    """Return the piece ids of each turn. Turns of one session share the same int objects, to save memory."""
    system: dict[int, tuple[int, ...]] = {}
    known: dict[int, tuple[int, ...]] = {}
    hashes = []
    for session, application, of_system, pieces in zip(
        turns.session.tolist(),
        turns.application.tolist(),
        shared.tolist(),
        (turns.prompt_tokens // HASH_TOKENS).tolist(),
        strict=True,
    ):
        ids = known.get(session)
        if ids is None:
            if application not in system:
                system[application] = tuple(range(application * _PIECES, application * _PIECES + of_system))
            ids = system[application]
        if len(ids) < pieces:
            own = (applications + session) * _PIECES
            ids += tuple(range(own + len(ids), own + pieces))
        known[session] = ids
        hashes.append(ids[:pieces])
    return hashes
