"""What a workload draws by seed: lengths and prefixes, as columns over requests."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Requests:
    """Lengths in tokens, and ids of the prompts' leading whole pieces; `hashes` is empty when nothing is shared.

    Requests of one of the `groups`, a session for one, ask for latencies of the same class; without groups each for
    its own.
    """

    prompt_tokens: Ints
    output_tokens: Ints
    hashes: Sequence[tuple[int, ...]] = ()
    groups: Ints | None = None


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose, which no other purpose's draws disturb; seeds are whole numbers from 0 on."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def cap(requests: Requests, longest_tokens: int, hash_tokens: int) -> Requests:
    """Cuts outputs to half of what a sequence may have at most, and prompts to what their outputs leave of it."""
    output = np.minimum(requests.output_tokens, longest_tokens // 2)
    prompt = np.minimum(requests.prompt_tokens, longest_tokens - output)
    hashes = list(requests.hashes)
    if hashes:
        for index in np.flatnonzero(prompt < requests.prompt_tokens).tolist():
            hashes[index] = hashes[index][: int(prompt[index]) // hash_tokens]
    return replace(requests, prompt_tokens=prompt, output_tokens=output, hashes=hashes)
