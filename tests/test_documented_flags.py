"""docs/configure.md documents every flag of the three servers: variable, chart key, default and `--help` text."""

import re
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from epp.environment import UNUSED
from epp.options import WITHOUT_EFFECT

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "configure.md").read_text()


def section(server: str) -> str:
    """Return the part of the page about one server."""
    found = re.search(rf"^## .*`python -m {server}`$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def options(server: str) -> dict[str, click.Option]:
    """Return the server's options by their longest names, without those that have no effect."""
    command = import_module(f"{server}.__main__").main
    known = (option for option in command.params if isinstance(option, click.Option) and not option.hidden)
    return {max(option.opts, key=len): option for option in known}


def rows(server: str) -> dict[str, list[str]]:
    """Return by flag the cells of its row that follow the flag."""
    lines = re.findall(r"^\| `(--[\w-]+)` \| (.*) \|$", section(server), re.MULTILINE)
    return {flag: [cell.strip().strip("`") for cell in cells.split(" | ")] for flag, cells in lines}


def default_of(option: click.Option) -> str | None:
    """Return the default as the page writes it, or None if the page may use words."""
    match option.default:
        case bool(value):
            return str(value).lower()
        case "":
            return "empty"
        case str(value):
            return value
        case int(value) | float(value):
            return f"{value:.10g}"
    return None


def help_text(option: click.Option) -> str:
    """Return the option's `--help` text without the default, for which the page has a column."""
    return re.sub(r"\s+\[default: .*\]$", "", option.help or "")


@pytest.mark.parametrize("server", ["epp", "trainer", "predictor"])
def test_every_flag_has_a_row_with_its_variable_default_and_help(server: str) -> None:
    documented, known = rows(server), options(server)
    assert set(documented) == set(known)
    for flag, option in known.items():
        variables = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or [""])
        cells = documented[flag]
        assert cells[0] == variables[0], flag
        assert cells[-2] == (default_of(option) or cells[-2]), flag
        assert cells[-1].replace("`", "").startswith(help_text(option)), flag


@pytest.mark.parametrize(("server", "part"), [("trainer", "trainer"), ("predictor", "predictor")])
def test_every_chart_key_stands_beside_its_variable(server: str, part: str) -> None:
    template = (ROOT / "helm/inferencepool/templates/_latency.tpl").read_text()
    found = re.search(r'define "inferencepool.configNames" -\}\}\n(.*?)\{\{-', template, re.DOTALL)
    assert found
    keys = yaml.safe_load(found[1])[part]
    assert {cells[1]: cells[0] for cells in rows(server).values() if cells[1]} == keys


def test_flags_and_variables_without_effect_are_listed() -> None:
    flags = {f"--{name.replace('_', '-')}" for name in WITHOUT_EFFECT}
    text = re.search(r"### Accepted without effect\n(.*?)\n## ", PAGE, re.DOTALL)
    assert text
    named = set(re.findall(r"`([^`]+)`", text[1]))
    assert named == flags | set(UNUSED)


def read_variables(file: Path) -> set[str]:
    """Return the names of variables that a module reads by `environ.get("X")` or `environ["X"]`."""
    text = file.read_text()
    return set(re.findall(r"""\benviron(?:\.get\(|\[)\s*"([A-Z][A-Z0-9_]+)\"""", text))


def test_every_variable_is_documented() -> None:
    folders = ("epp", "trainer", "predictor", "serving", "model_store", "headroom")
    read = {name for folder in folders for file in (ROOT / folder).rglob("*.py") for name in read_variables(file)}
    told = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    # Kubernetes sets these in every pod.
    known = {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"}
    assert len(read) > 5
    assert {name for name in read - known if not re.search(rf"\b{name}\b", told)} == set()
