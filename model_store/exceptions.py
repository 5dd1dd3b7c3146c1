"""The errors of a model store."""


class StoreError(Exception):
    """Any failure of a model store; the text says what happened and what to do."""


class StoreUnavailableError(StoreError):
    """The store can't be reached, read or written."""


class DamagedError(StoreError):
    """A file of the store differs from its manifest: truncated, altered or of an unknown format."""


class UntrustedError(StoreError):
    """A generation is not signed by a key that the reader trusts."""


class NotFoundError(StoreError):
    """The store has no such model, version or generation."""


class ConflictError(StoreError):
    """Another writer was faster: it wrote or changed the object meanwhile."""


class TooLargeError(StoreError):
    """A file of the store is larger than the reader's limit."""
