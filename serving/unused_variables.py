"""Reports environment variables that other servers of the same kind read, and that have no effect here."""

from collections.abc import Iterator, Mapping


def describe_unused(reasons: Mapping[str, str], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each variable that is set, with the reason why it has no effect."""
    for name, reason in reasons.items():
        if name in environment:
            yield f"{name} is set and not used: {reason}"
