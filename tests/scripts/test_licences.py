from email.message import Message

import pytest

from scripts.licences import EXCEPTIONS, is_allowed, licence_of, locked_packages


def test_every_locked_package_has_an_allowed_licence() -> None:
    packages = list(locked_packages())
    assert len(packages) > 100
    assert sum("epp" in one.images for one in packages) > 30
    assert {one.name: one.licence for one in packages if not one.is_allowed} == {}
    # No image contains an exception, and none is left over.
    assert {one.name for one in packages if not is_allowed(one.licence)} == set(EXCEPTIONS)


@pytest.mark.parametrize("expression", ["MIT", "MIT OR GPL-3.0-only", "Apache-2.0 AND MIT", "GPL-2.0-only OR 0BSD"])
def test_permissive_licences_are_allowed(expression: str) -> None:
    assert is_allowed(expression)


@pytest.mark.parametrize("expression", ["", "GPL-3.0-only", "MIT AND AGPL-3.0-only", "Proprietary", "(MIT)"])
def test_other_licences_are_not(expression: str) -> None:
    assert not is_allowed(expression)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["License-Expression: MIT", "License: GPL"], "MIT"),
        (["Classifier: License :: OSI Approved :: BSD License", "License: see LICENSE"], "BSD"),
        (["Classifier: License :: OSI Approved", "License: Apache\n  and more"], "Apache-2.0"),
        (
            [
                "Classifier: License :: OSI Approved :: MIT License",
                "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
            ],
            "MIT AND GNU General Public License v3 (GPLv3)",
        ),
        (["License: "], ""),
        ([], ""),
    ],
)
def test_the_metadata_of_any_age_is_read(lines: list[str], expected: str) -> None:
    metadata = Message()
    for line in lines:
        name, _, value = line.partition(": ")
        metadata[name] = value
    assert licence_of(metadata) == expected
