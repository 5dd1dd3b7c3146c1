"""Python environments of other projects' programs, in the user's cache folder, each from a lock with hashes."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headroom.processes.exceptions import PartError


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headroom"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold a lock in the cache folder, so that two programs don't build the same thing."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(environment: Path, lock: Path, *flags: str) -> None:
    """Install the locked packages, and no others, into a new environment. `flags` are more of `uv pip install`.

    The folder can be renamed.
    """
    run(_uv(), "pip", "install", "--python", _new(environment), *flags, *_wanted(lock))


def install_for_any_python(environment: Path, lock: Path) -> None:
    """Install the locked packages, even those that ask for a newer Python, into a new environment.

    Once the folder is renamed, only the environment's `python` works, and its commands don't.
    """
    # Only pip can be told to ignore the wish for a newer Python.
    pip = [sys.executable, "-m", "pip", "--python", _new(environment), "install", "--no-compile"]
    run(*pip, "--ignore-requires-python", *_wanted(lock))


def _new(environment: Path) -> str:
    """Make an empty environment, and return its Python."""
    run(_uv(), "venv", "--quiet", "--relocatable", "--python", sys.executable, str(environment))
    return str(environment / "bin" / "python")


def _wanted(lock: Path) -> list[str]:
    return ["--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]


def _uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


def start_anew(place: Path) -> Path:
    """Return the path under which `place` is made, without what an interrupted attempt has left."""
    unfinished = place.with_name(f"{place.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def run(*command: str) -> None:
    """Run a command. Raise PartError with the last lines of its output if it fails."""
    environment = {**os.environ}
    # uv reads no settings of pip, and brings certificates of its own.
    if index := os.environ.get("PIP_INDEX_URL"):
        environment.setdefault("UV_DEFAULT_INDEX", index)
    if not os.environ.get("SSL_CERT_FILE"):
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if ended.returncode:
        last = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-10:])
        raise PartError(f"{Path(command[0]).name} has failed: {last}")


def check_space(what: str, gigabytes: float) -> None:
    """Raise PartError if the cache folder has no room for an environment of this size."""
    free = shutil.disk_usage(cache_folder()).free
    if free < gigabytes * 1e9:
        raise PartError(f"{what} needs {gigabytes:g} GB in {cache_folder()}, where {free / 1e9:.1f} GB are free")


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
