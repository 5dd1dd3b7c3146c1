"""Taking samples in: once each, written down before they are acknowledged."""

import asyncio
import logging
from collections import OrderedDict

from trainer.exceptions import JournalError
from trainer.journal import Journal, key_digest, sync
from trainer.window import Window
from trainer.wire import Samples, join

logger = logging.getLogger("headroom.trainer")

_REMEMBERED_KEYS = 10_000
_RESTORED_AT_ONCE = 50_000


class Ingestion:
    """The way into the window. Without a journal, samples live as long as the process."""

    def __init__(self, window: Window, journal: Journal | None) -> None:
        self._window = window
        self._journal = journal
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def restore(self) -> int:
        """Brings back what the journal holds; returns how many samples that were."""
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
        """The window takes many rows at once about as fast as one."""
        if not batches:
            return 0
        samples = join(batches)
        self._window.add(samples)
        return len(samples)

    def take(self, key: str, samples: Samples) -> bool:
        """Takes a batch in; False when a batch with this key is there already. JournalError when it can't be kept."""
        digest = key_digest(key)
        if key and digest in self._keys:
            return False
        if self._journal is not None and len(samples):
            self._journal.append(key, samples)
        self._remember(digest)
        self._window.add(samples)
        return True

    async def tidy(self) -> None:
        """Brings the journal to disk, and shortens it when it has grown large; both in another thread."""
        if self._journal is None:
            return
        try:
            descriptor = self._journal.duplicate()
            if descriptor is not None:
                await asyncio.to_thread(sync, descriptor)
            if self._journal.is_full:
                await self._shorten(self._journal)
        except OSError as error:
            logger.error("can't tidy the sample journal: %s", error)

    async def forget(self) -> None:
        """Makes the journal hold what the window holds, after something was flushed from it."""
        if self._journal is not None:
            try:
                await self._shorten(self._journal)
            except OSError as error:
                raise JournalError(f"can't shorten the sample journal: {error.strerror}") from error

    async def _shorten(self, journal: Journal) -> None:
        number, samples = journal.rotate(), await self._window.samples()
        await asyncio.to_thread(journal.write_snapshot, number, samples)
        logger.info("the sample journal was shortened to %d samples", len(samples))

    def _remember(self, digest: bytes) -> None:
        if any(digest):
            self._keys[digest] = None
            if len(self._keys) > _REMEMBERED_KEYS:
                self._keys.popitem(last=False)
