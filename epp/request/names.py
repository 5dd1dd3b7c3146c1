"""Shorten the names that clients send, before the picker keeps them."""

import xxhash

# Characters of a name that are kept: longer than any real model's or request's name.
LONGEST_NAME = 256


def shorten(name: str) -> str:
    """Return the name, or its beginning and a digest if it is too long. Different names stay different."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = xxhash.xxh3_64_hexdigest(name.encode("utf-8", "surrogatepass"))
    return f"{name[:LONGEST_NAME]}~{digest}"
