"""Token counts and block hashes of a text. Four bytes count as one token."""

import xxhash

BYTES_PER_TOKEN = 4


def token_count(text: bytes) -> int:
    """Return the text's tokens; at least one, because every model server puts one before the text."""
    return max(1, -(-len(text) // BYTES_PER_TOKEN))


def block_hashes(text: bytes, block_tokens: int) -> tuple[int, ...]:
    """Return chained hashes of the text's whole blocks: equal hashes mean equal text from the beginning."""
    size = block_tokens * BYTES_PER_TOKEN
    digest, hashes = 0, []
    for start in range(0, len(text) // size * size, size):
        digest = xxhash.xxh3_64_intdigest(text[start : start + size], seed=digest)
        hashes.append(digest)
    return tuple(hashes)
