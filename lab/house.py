"""Count the files, functions and lines of this repository's Python code, commit by commit.

`python -m lab.house f06c39e HEAD` prints a table with a column for each commit. `--page FILE` also puts it
into FILE, in the place of the table that stands there.
"""

import ast
import io
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np

from lab import markdown

REPOSITORY = Path(__file__).parents[1]
# Written by a program: classes of protocol buffers.
_GENERATED = "_pb2.py"
# The head of the first column, by which the table's place in a page is found.
_FIRST = "figure"


@dataclass(frozen=True)
class Module:
    """A Python file: its lines, the lines of each of its functions, and the number of its tests."""

    lines: int
    functions: tuple[int, ...]
    tests: int


def measure(source: str) -> Module:
    """Count the lines, functions and tests of a file. A nested function counts by itself, too."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    lengths = tuple((node.end_lineno or node.lineno) - node.lineno + 1 for node in functions)
    return Module(source.count("\n"), lengths, sum(node.name.startswith("test_") for node in functions))


def read(commit: str) -> dict[str, str]:
    """Return the text of every Python file of a commit, by its path."""
    command = ["git", "-C", str(REPOSITORY), "archive", commit]
    packed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {
            member.name: file.read().decode()
            for member in archive
            if member.name.endswith(".py")
            and not member.name.endswith(_GENERATED)
            and (file := archive.extractfile(member))
        }


def figures(files: Mapping[str, str]) -> dict[str, str]:
    """Return every figure of a commit's files, by its name in the table."""
    code = [measure(text) for path, text in files.items() if not path.startswith("tests/")]
    tests = [measure(text) for path, text in files.items() if path.startswith("tests/")]
    lengths = [lines for module in code for lines in module.functions]
    code_lines, test_lines = (sum(module.lines for module in modules) for modules in (code, tests))
    return {
        "files of code": f"{len(code):,}",
        "lines of code": f"{code_lines:,}",
        "lines a file, median": _middle(module.lines for module in code),
        "lines a file, most": f"{max(module.lines for module in code):,}",
        "files of more than 400 lines": f"{sum(module.lines > 400 for module in code):,}",
        "functions": f"{len(lengths):,}",
        "lines a function, median": _middle(lengths),
        "lines a function, p90": f"{np.percentile(lengths, 90):.0f}",
        "lines a function, most": f"{max(lengths):,}",
        "files of tests": f"{len(tests):,}",
        "tests, before parameters": f"{sum(module.tests for module in tests):,}",
        "lines of tests": f"{test_lines:,}",
        "lines of tests to a line of code": f"{test_lines / code_lines:.2f}",
    }


def _middle(values: Iterable[int]) -> str:
    return f"{median(values):.0f}"


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Lay the figures of several commits out as a Markdown table, a column for each."""
    names = next(iter(columns.values()))
    rows = [(name, *(column[name] for column in columns.values())) for name in names]
    return markdown.table((_FIRST, *columns), rows) + "\n"


def replace(page: str, new: str) -> str:
    """Put the table in the place of the one in a page."""
    begin = f"| {_FIRST} |"
    place = re.compile(rf"^{re.escape(begin)}.*\n(?:\|.*\n)*", re.MULTILINE)
    if not place.search(page):
        raise click.ClickException(f"The page has no table that begins with {begin!r}.")
    return place.sub(lambda _: new, page, count=1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("commits", nargs=-1, required=True)
@click.option("--page", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Replace the table in FILE.")
def main(commits: Sequence[str], page: Path | None) -> None:
    """Print the figures of each of COMMITS (such as f06c39e HEAD) as a table."""
    text = table({commit: figures(read(commit)) for commit in commits})
    click.echo(text, nl=False)
    if page:
        page.write_text(replace(page.read_text(), text))


if __name__ == "__main__":
    main()
