"""The files of the live page: vendored ones are those of their release, and none refers to another host."""

import re
from hashlib import sha256

import pytest

from epp.live.routes import ASSETS

VENDORED = {
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
# A name of SVG, which nothing is loaded from.
_SVG = "http://www.w3.org/2000/svg"


def test_vendored_files_are_those_of_their_release() -> None:
    found = {file.name: sha256(file.read_bytes()).hexdigest() for file in (ASSETS / "vendor").iterdir()}
    assert {name: found.get(name) for name in VENDORED} == VENDORED
    assert found.keys() - VENDORED.keys() == {"README.md"}


@pytest.mark.parametrize("name", [file.name for file in ASSETS.iterdir() if file.is_file()])
def test_no_file_refers_to_another_host(name: str) -> None:
    text = (ASSETS / name).read_text()
    assert re.findall(r"\bhttps?://[^\s\"'`<>]+", text.replace(_SVG, "")) == []
