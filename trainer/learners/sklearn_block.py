"""Blocks the import of scikit-learn while a booster's library is imported."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_sklearn() -> Iterator[None]:
    """Make `import sklearn` fail inside the block.

    XGBoost and LightGBM import scikit-learn, if it is installed, for wrappers that the trainer does not use. That
    import costs 0.7 s at start and 60 MiB of memory.
    """
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # the import system then raises ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules["sklearn"]
