"""Mermaid, which draws the diagrams of the documentation in the reader's browser."""

import base64
import hashlib
import io
import tarfile
import urllib.request
from pathlib import Path
from typing import Final

from headroom.processes.exceptions import PartError
from lab.environments import alone, cache_folder, tell

# The bundle of https://mermaid.js.org for flowcharts and sequences, with its hash by npm's registry. Licence: MIT.
_URL: Final = "https://registry.npmjs.org/@mermaid-js/tiny/-/tiny-12.0.0.tgz"
_SHA512: Final = "ZW9YXy+3tSLPscBT+NnQO0K0qYH7BGES5nExl6Snoygey7xd2N0cO7Nq30N5k/u7gIeYoCrldyVy+VTCMWrNDQ=="
_MEMBERS: Final = {"mermaid.tiny.js": "package/dist/mermaid.tiny.js", "mermaid-LICENSE.txt": "package/LICENSE"}
_LARGEST: Final = 4 << 20
_PATIENCE_S: Final = 60.0


def diagram_script() -> dict[str, bytes]:
    """Return the script and its licence by file name, from the cache folder if they have been downloaded before.

    Raise PartError if they can't be had.
    """
    kept = cache_folder() / Path(_URL).name
    with alone("diagram-script"):
        archive = kept.read_bytes() if kept.is_file() else b""
        if not _is_right(archive):
            archive = _download()
            kept.write_bytes(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return {name: _content(members, member) for name, member in _MEMBERS.items()}


def _content(members: tarfile.TarFile, name: str) -> bytes:
    file = members.extractfile(name)
    assert file, name
    return file.read()


def _download() -> bytes:
    tell(f"downloading {_URL} (once)")
    try:
        with urllib.request.urlopen(_URL, timeout=_PATIENCE_S) as answer:
            archive: bytes = answer.read(_LARGEST)
    except OSError as error:
        raise PartError(f"can't download {_URL}: {error}") from error
    if not _is_right(archive):
        raise PartError(f"{_URL} has another hash than it should")
    return archive


def _is_right(archive: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(archive).digest()).decode() == _SHA512
