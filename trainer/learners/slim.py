"""Importing boosters without what they import for the sake of wrappers that nothing here uses."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_sklearn() -> Iterator[None]:
    """Both boosters import scikit-learn where it is installed, which costs 0.7 s of a start and 60 MiB."""
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # what the import system takes for: not there
    try:
        yield
    finally:
        del sys.modules["sklearn"]
