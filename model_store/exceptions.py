"""What can go wrong with a model store."""


class StoreError(Exception):
    """Any failure of a model store; the text says what happened and what to do."""


class StoreUnavailableError(StoreError):
    """The store can't be reached, read or written."""


class DamagedError(StoreError):
    """A file of the store is not what its manifest says: torn, altered or of an unknown format."""


class NotFoundError(StoreError):
    """The store has no such model, version or generation."""


class ConflictError(StoreError):
    """Another writer was faster: what was to be written has been written or changed meanwhile."""


class TooLargeError(StoreError):
    """A file of the store is larger than the reader wants."""
