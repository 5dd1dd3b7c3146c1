"""Install each judge into an environment of its own, in the user's cache folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

from headroom.processes.exceptions import PartError
from lab.environments import alone, cache_folder, check_space, digest, install, install_for_any_python, start_anew, tell


@dataclass(frozen=True, slots=True)
class Package:
    """A judge's package with its version, its command, and the size of its environment.

    The lock beside this file has the name of the command. `any_python` ignores the package's wish for a newer Python.
    """

    name: str
    version: str
    gigabytes: float
    any_python: bool = False

    @property
    def lock(self) -> Path:
        return Path(__file__).with_name(f"{self.name.replace('-', '_')}.lock")

    @property
    def folder(self) -> Path:
        return cache_folder() / f"{self.name}-{self.version}-{digest(self.lock)}"


def installed(package: Package) -> Path:
    """Return the judge's command. Install it if necessary, which takes a minute or so once.

    Raise PartError if it can't be installed here.
    """
    if not package.folder.exists():
        with alone(package.name):
            if not package.folder.exists():
                _install(package)
    return package.folder / "bin" / package.name


def _install(package: Package) -> None:
    if sys.platform != "linux":
        raise PartError(f"the packages of {package.name} are locked for Linux: run this on Linux, or in a container")
    check_space(package.name, package.gigabytes)
    tell(f"Installing {package.name} {package.version} into {package.folder} ({package.gigabytes:g} GB, once)")
    unfinished = start_anew(package.folder)
    (install_for_any_python if package.any_python else install)(unfinished, package.lock)
    unfinished.rename(package.folder)
