"""Read a configuration file again when it changes, and keep what was read before when the new text is wrong."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from epp.exceptions import ConfigError
from serving.watched_file import Stamp, file_stamp

logger = logging.getLogger("headroom.epp")

T = TypeVar("T")


class ReloadedFile(Generic[T]):
    """A file whose text `read` understands; it raises ConfigError for a wrong one.

    `reloads` counts the changes applied after the start, `failures` the rejected ones. A mounted ConfigMap changes when
    a symbolic link is renamed, so changes are detected by the inode, not by the path. A file that is missing for a
    moment changes nothing.
    """

    def __init__(self, path: Path, read: Callable[[str], T]) -> None:
        self.reloads = 0
        self.failures = 0
        self._path = path
        self._read = read
        self._seen: Stamp | None = None
        self._readable = True

    def load(self) -> T:
        """Read the file; ConfigError when it can't be read or is wrong."""
        try:
            self._seen = file_stamp(self._path)
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"can't read {self._path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self._path} is not UTF-8: {error.reason} at byte {error.start}") from error
        return self._read(text)

    async def watch(self, apply: Callable[[T], None], interval_s: float = 1.0) -> None:
        """Call `apply` with what the file says whenever it changes, for ever."""
        while True:
            await asyncio.sleep(interval_s)
            if not self._changed():
                continue
            try:
                apply(await asyncio.to_thread(self.load))
            except Exception as error:  # A plugin of another package may raise anything, and must not end the picker.
                self.failures += 1
                details = None if isinstance(error, ConfigError) else error
                logger.error(
                    "%s: not applied, the current configuration stays: %s", self._path, error, exc_info=details
                )
            else:
                self.reloads += 1
                logger.info("%s: applied", self._path)

    def _changed(self) -> bool:
        stamp = file_stamp(self._path)
        if stamp is None and self._readable:
            logger.warning("%s is missing or can't be read; the current configuration stays", self._path)
        self._readable = stamp is not None
        return stamp not in (None, self._seen)
