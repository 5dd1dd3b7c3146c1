"""From text to what the engine counts: four bytes are a token, and sixteen tokens a block."""

import xxhash

BYTES_PER_TOKEN = 4


def token_count(text: bytes) -> int:
    """At least one token, as every model server puts one before the text."""
    return max(1, -(-len(text) // BYTES_PER_TOKEN))


def block_hashes(text: bytes, block_tokens: int) -> tuple[int, ...]:
    """Chained hashes of the whole blocks, so that equal hashes mean equal text from the beginning."""
    size = block_tokens * BYTES_PER_TOKEN
    digest, hashes = 0, []
    for start in range(0, len(text) // size * size, size):
        digest = xxhash.xxh3_64_intdigest(text[start : start + size], seed=digest)
        hashes.append(digest)
    return tuple(hashes)
