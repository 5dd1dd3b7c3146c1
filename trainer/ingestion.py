"""Ingestion of sample batches: each counts once, and is in the journal before it is acknowledged."""

import asyncio
import logging
from collections import OrderedDict

from serving.error_log import ErrorLog
from trainer.exceptions import JournalError
from trainer.journal import Journal, key_digest, sync
from trainer.quarantine import Quarantine, SourceShares
from trainer.window import Window
from trainer.wire import Samples, join

logger = logging.getLogger("headroom.trainer")

# Batch keys that are kept to recognise repeated batches.
_REMEMBERED_KEYS = 10_000
# Rows that are added to the window at once: many rows take about as long as one.
_RESTORED_AT_ONCE = 50_000
# Rows of a batch that are added in one turn of the event loop: 3 ms of work.
_ADDED_AT_ONCE = 5_000


class Ingestion:
    """Adds batches to the window and to the journal. Without a journal, samples are lost when the process ends."""

    def __init__(self, window: Window, journal: Journal | None, max_source_share: float = 1.0) -> None:
        self._window = window
        self._journal = journal
        self.quarantine = Quarantine(SourceShares(max_source_share))
        self._keys: OrderedDict[bytes, None] = OrderedDict()
        self._journal_errors = ErrorLog(logger)

    def restore(self) -> int:
        """Add the journal's samples to the window; return their number."""
        if self._journal is None:
            return 0
        restored, pending, pending_rows = 0, list[Samples](), 0
        for digest, samples in self._journal.replay():
            self._remember(digest)
            pending.append(samples)
            pending_rows += len(samples)
            if pending_rows >= _RESTORED_AT_ONCE:
                restored += self._add_all(pending)
                pending, pending_rows = [], 0
        return restored + self._add_all(pending)

    def _add_all(self, batches: list[Samples]) -> int:
        if not batches:
            return 0
        samples = self.quarantine.sift(join(batches), source="")
        self._window.add(samples)
        return len(samples)

    async def accept(self, key: str, samples: Samples, source: str = "") -> bool:
        """Add a batch; return False if a batch with this key was added before. Raise JournalError if not written.

        Rows that the quarantine sets aside reach neither the journal nor the window. `source` identifies the sender.
        Other tasks run while a large batch is added.
        """
        digest = key_digest(key)
        if key and digest in self._keys:
            return False
        samples = self.quarantine.sift(samples, source)
        if self._journal is not None and len(samples):
            self._journal.append(key, samples)
        self._remember(digest)
        self._window.add(samples.part(slice(_ADDED_AT_ONCE)))
        for start in range(_ADDED_AT_ONCE, len(samples), _ADDED_AT_ONCE):
            await asyncio.sleep(0)
            self._window.add(samples.part(slice(start, start + _ADDED_AT_ONCE)))
        return True

    async def maintain_journal(self) -> None:
        """Sync the journal to disk, and compact it when it has grown large; both run in another thread."""
        if self._journal is None:
            return
        try:
            descriptor = self._journal.duplicate()
            if descriptor is not None:
                await asyncio.to_thread(sync, descriptor)
            if self._journal.is_full:
                await self._compact(self._journal)
            self._journal_errors.succeeded()
        except OSError as error:
            self._journal_errors.failed(error, "can't sync or compact the sample journal: %s", error)

    async def rewrite_journal(self) -> None:
        """Rewrite the journal from the window, after samples were flushed from the window."""
        if self._journal is not None:
            try:
                await self._compact(self._journal)
            except OSError as error:
                raise JournalError(f"can't compact the sample journal: {error.strerror}") from error

    async def _compact(self, journal: Journal) -> None:
        number, samples = journal.rotate(), await self._window.samples()
        await asyncio.to_thread(journal.write_snapshot, number, samples)
        logger.info("compacted the sample journal to %d samples", len(samples))

    def _remember(self, digest: bytes) -> None:
        if any(digest):
            self._keys[digest] = None
            if len(self._keys) > _REMEMBERED_KEYS:
                self._keys.popitem(last=False)
