"""The figures of docs/develop.md are counted right, and the page has the table that the command prints."""

from pathlib import Path

import pytest
from click import ClickException

from lab.house import Module, figures, measure, replace, table

PAGE = Path(__file__).parents[2] / "docs" / "develop.md"

SOURCE = '''\
"""A module."""


async def outer():
    def inner():
        return 1

    return inner


def test_it():
    assert 1
'''


def test_nested_and_asynchronous_functions_count_by_themselves() -> None:
    assert measure(SOURCE) == Module(lines=12, functions=(5, 2, 2), tests=1)


def test_the_folder_tells_tests_from_code() -> None:
    found = figures({"epp/a.py": SOURCE, "lab/b.py": "x = 1\n" * 500, "tests/epp/test_a.py": SOURCE})
    assert found["files of code"] == "2"
    assert found["lines of code"] == "512"
    assert found["files of more than 400 lines"] == "1"
    assert found["lines a function, most"] == "5"
    assert found["tests, before parameters"] == "1"
    assert found["lines of tests to a line of code"] == "0.02"


def test_only_the_table_of_a_page_is_replaced() -> None:
    page = "# Title\n\n| figure | old |\n|---|---:|\n| gone | 1 |\n\n| other | table |\n"
    new = table({"f06c39e": {"files": "1"}, "HEAD": {"files": "2"}})
    assert replace(page, new) == (
        "# Title\n\n| figure | f06c39e | HEAD |\n|---|---:|---:|\n| files | 1 | 2 |\n\n| other | table |\n"
    )


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(ClickException, match="no table that begins with"):
        replace("# Title\n", "")


def test_the_page_has_every_figure() -> None:
    text = PAGE.read_text()
    for name in figures({"epp/a.py": SOURCE, "tests/epp/test_a.py": SOURCE}):
        assert f"\n| {name} | " in text
