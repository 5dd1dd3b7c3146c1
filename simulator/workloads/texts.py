"""Requests to send, made of a scenario: prompts have its lengths, and share the prefixes that its ids say."""

import random
import string

from simulator.arrival import Arrival, Scenario
from simulator.prompt import BYTES_PER_TOKEN
from simulator.workload import TEMPLATE_BYTES, PlannedRequest

_WORD_LETTERS = 24


def sendable(scenario: Scenario, salt: str = "") -> list[PlannedRequest]:
    """Return a request to send for each arrival. Equal leading piece ids give equal leading texts.

    `salt` decides texts and ids: two runs with different salts share no prefix, so neither finds the other's prompts
    in a cache.
    """
    pieces: dict[int, str] = {}
    return [_request(arrival, scenario.hash_tokens * BYTES_PER_TOKEN, salt, pieces) for arrival in scenario.arrivals]


def _request(arrival: Arrival, piece_bytes: int, salt: str, pieces: dict[int, str]) -> PlannedRequest:
    own = random.Random(f"{salt}/request/{arrival.index}")
    for piece in arrival.hashes:
        if piece not in pieces:
            pieces[piece] = _text(random.Random(f"{salt}/piece/{piece}"), piece_bytes)
    # The chat template adds bytes, so the text is shorter than the prompt. If the pieces reach to its end, the
    # last piece is cut. The text has at least one character.
    length = max(arrival.prompt_tokens * BYTES_PER_TOKEN - TEMPLATE_BYTES, 1)
    shared = "".join(pieces[piece] for piece in arrival.hashes)[:length]
    return PlannedRequest(
        index=arrival.index,
        id=f"{own.getrandbits(128):032x}",
        arrival_s=arrival.arrival_s,
        prompt_tokens=arrival.prompt_tokens,
        output_tokens=arrival.output_tokens,
        slo_class=arrival.slo_class,
        slo_ttft_ms=arrival.slo_ttft_ms,
        slo_tpot_ms=arrival.slo_tpot_ms,
        prompt=shared + _text(own, length - len(shared)),
    )


def _text(rng: random.Random, length: int) -> str:
    """Return a repeated random word, so that no other text has equal blocks."""
    word = "".join(rng.choices(string.ascii_lowercase, k=_WORD_LETTERS)) + " "
    return (word * (length // len(word) + 1))[:length]
