"""Requests that a workload draws from a seed: lengths and prefixes, as columns over requests."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Requests:
    """Columns over requests: lengths in tokens, and ids of the prompts' leading whole pieces.

    `hashes` is empty if no prompts share a prefix. Requests with equal numbers in `groups` (one session, for example)
    have objectives of the same class. With `groups=None`, each request has a class of its own.
    """

    prompt_tokens: Ints
    output_tokens: Ints
    hashes: Sequence[tuple[int, ...]] = ()
    groups: Ints | None = None


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return a random generator for one purpose, independent of those for other purposes. `seed` is at least 0."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def cap(requests: Requests, longest_tokens: int, hash_tokens: int) -> Requests:
    """Cut outputs to half of `longest_tokens`, and prompts to what their outputs leave of `longest_tokens`."""
    output = np.minimum(requests.output_tokens, longest_tokens // 2)
    prompt = np.minimum(requests.prompt_tokens, longest_tokens - output)
    hashes = list(requests.hashes)
    if hashes:
        for index in np.flatnonzero(prompt < requests.prompt_tokens).tolist():
            hashes[index] = hashes[index][: int(prompt[index]) // hash_tokens]
    return replace(requests, prompt_tokens=prompt, output_tokens=output, hashes=hashes)
