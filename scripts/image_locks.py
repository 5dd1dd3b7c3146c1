"""Write images/<image>.lock: the part of requirements.lock that one image installs, with hashes.

Sections are copied unchanged, so an image runs the versions that the tests run. pyproject.toml and the metadata of the
installed packages tell which sections an image needs.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
# The extras of each image. The picker's image supports all of the picker's flags: --latency-client embedded,
# --model-store s3://, --tokenizer and --tracing.
IMAGES: Final = {
    "epp": ("epp", "predictor", "s3", "tokenizer", "tracing"),
    "latency-training": ("trainer", "s3", "signing"),
    "latency-prediction": ("predictor", "s3", "signing"),
}
PROJECT: Final = "headroom"
_HEADER: Final = "# Made by scripts/image_locks.py from requirements.lock: headroom[{extras}].\n"
_LINUX: Final = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.16",
    "python_version": "3.11",
    "sys_platform": "linux",
}
_MACHINES: Final = ("x86_64", "aarch64")


def sections(lock: str) -> dict[str, tuple[Requirement, str]]:
    """Return the lock's sections by package name, without comments; sections for other platforms are left out."""
    found: dict[str, tuple[Requirement, str]] = {}
    for text in re.split(r"^(?=\w)", lock, flags=re.MULTILINE):
        lines = [line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#")]
        if lines:
            requirement = Requirement(lines[0].rstrip().rstrip("\\"))
            if _applies(requirement):
                found[canonicalize_name(requirement.name)] = requirement, "".join(lines)
    return found


def needed_packages(extras: Iterable[str]) -> set[str]:
    """Return the names of all packages that `pip install headroom[extras]` installs on Linux, on either machine."""
    found: set[tuple[str, str]] = set()
    waiting = [(PROJECT, extra) for extra in ("", *extras)]
    while waiting:
        if (pair := waiting.pop()) in found:
            continue
        found.add(pair)
        for requirement in _requirements(pair[0]):
            if _applies(requirement, pair[1]):
                waiting += [(canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras)]
    return {name for name, _ in found} - {PROJECT}


def lock_content(image: str, lock: str) -> str:
    """Return the content of an image's lock file; raise ClickException if the environment differs from the lock."""
    known = sections(lock)
    names = sorted(needed_packages(IMAGES[image]))
    for name in names:
        if name not in known:
            raise click.ClickException(f"requirements.lock lacks {name}, which {image} needs: run scripts/lock")
        if not known[name][0].specifier.contains(installed := distribution(name).version, prereleases=True):
            raise click.ClickException(f"{name} {installed} is installed, but not locked: run scripts/install")
    return _HEADER.format(extras=",".join(IMAGES[image])) + "".join(known[name][1] for name in names)


def _requirements(name: str) -> Iterator[Requirement]:
    if name != PROJECT:
        yield from map(Requirement, distribution(name).requires or ())
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    yield from map(Requirement, project["dependencies"])
    for extra, texts in project["optional-dependencies"].items():
        for text in texts:
            requirement, _, marker = text.partition(";")
            both = f"({marker}) and " if marker else ""
            yield Requirement(f"{requirement}; {both}extra == '{extra}'")


def _applies(requirement: Requirement, extra: str = "") -> bool:
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate({**_LINUX, "platform_machine": machine, "extra": extra}) for machine in _MACHINES
    )


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not up to date.")
def main(check: bool) -> None:
    """Write the lock file of each image."""
    lock = (ROOT / "requirements.lock").read_text()
    stale = []
    for image in IMAGES:
        path, content = ROOT / "images" / f"{image}.lock", lock_content(image, lock)
        if not path.exists() or path.read_text() != content:
            stale.append(path.name)
            if not check:
                path.write_text(content)
    if check and stale:
        raise click.ClickException(f"not up to date: {', '.join(stale)}; run scripts/lock")
    print(f"written: {', '.join(stale)}" if stale else "up to date", file=sys.stderr)


if __name__ == "__main__":
    main()
