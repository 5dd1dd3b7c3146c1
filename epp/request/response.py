"""Read a response's body as it passes: output tokens if it is observed, and the usage that the server reports."""

from epp.request.stream import EventStream, Usage, read_usage

# Bytes of a JSON document that are kept; the usage of a larger document may be lost.
_MOST_KEPT_BYTES = 4 << 20
_USAGE = b'"usage"'


class ResponseBody:
    """The chunks of one body. `size_bytes` counts all of them; `is_whole` says that the last one has come.

    `stream` is set if the response is observed.
    """

    __slots__ = ("_tail", "is_stream", "is_whole", "size_bytes", "stream")

    def __init__(self, *, is_stream: bool, is_observed: bool) -> None:
        self.is_stream = is_stream
        self.stream = EventStream() if is_observed else None
        self._tail = b""
        self.size_bytes = 0
        self.is_whole = False

    def feed(self, chunk: bytes, end_of_stream: bool) -> int:
        """Take in the next chunk; return how many output tokens it completes, 0 unless the response is observed.

        Of several choices one counts. `stream` knows more.
        """
        self.size_bytes += len(chunk)
        self.is_whole = end_of_stream
        if self.stream is not None:
            return self.stream.feed(chunk)
        self._keep(chunk)
        return 0

    @property
    def is_complete(self) -> bool | None:
        """Whether a body that has ended is a whole answer. None if that can't be told, or isn't over yet."""
        return self.stream.is_complete if self.stream is not None and self.is_whole else None

    @property
    def usage(self) -> Usage | None:
        """The server's token counts: those so far of an observed stream, else those of the whole body."""
        if self.stream is not None:
            return self.stream.usage
        if not self._tail or not self.is_whole:
            return None
        if not self.is_stream:
            return read_usage(self._tail)
        stream = EventStream()
        stream.feed(self._tail)
        return stream.usage

    def _keep(self, chunk: bytes) -> None:
        """Keep the last chunk of a stream that contains usage; keep a JSON document whole, as usage comes last."""
        if self.is_stream:
            if _USAGE in chunk:
                self._tail = chunk
        elif len(self._tail) + len(chunk) <= _MOST_KEPT_BYTES:
            self._tail += chunk
