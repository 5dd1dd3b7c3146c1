"""docs/configure.md documents every flag of the three servers: variable, chart key, default and `--help` text."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from epp.environment import UNUSED
from epp.options import WITHOUT_EFFECT
from epp.scheduling.plugin import plugin_types

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "configure.md").read_text()
# Kubernetes sets the first two in every pod, and every system the third.
WITHOUT_DOCUMENTATION = {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "PATH"}


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
    """Return the names of variables that a module reads from the environment, also by constants of the module."""
    tree = ast.parse(file.read_text())
    constants = {
        name.id: value.value
        for node in ast.walk(tree)
        for name, value in assigned(node)
        if isinstance(name, ast.Name) and isinstance(value, ast.Constant)
    }
    names = (constants.get(key.id) if isinstance(key, ast.Name) else key for key in map(read_key, ast.walk(tree)))
    texts = (name.value if isinstance(name, ast.Constant) else name for name in names)
    return {text for text in texts if isinstance(text, str)}


def assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            yield from zip(names, values, strict=True)
        case ast.Assign(targets=[name], value=value):
            yield name, value
        case ast.AnnAssign(target=name, value=ast.expr() as value):
            yield name, value


def read_key(node: ast.AST) -> ast.expr | None:
    """Return what an expression asks the environment for, or None if it asks for nothing."""
    match node:
        case ast.Call(func=ast.Attribute(value=place, attr="get" | "pop"), args=[key, *_]) if is_environment(place):
            return key
        case ast.Call(func=function, args=[key, *_]) if ast.unparse(function).endswith("getenv"):
            return key
        case ast.Subscript(value=place, slice=key, ctx=ast.Load()) if is_environment(place):
            return key
        case ast.Compare(left=key, comparators=[place]) if is_environment(place):
            return key
    return None


def is_environment(place: ast.expr) -> bool:
    return ast.unparse(place) in {"environ", "os.environ"}


def test_every_variable_is_documented() -> None:
    folders = ("epp", "trainer", "predictor", "serving", "model_store", "headroom", "simulator", "lab")
    read = {name for folder in folders for file in (ROOT / folder).rglob("*.py") for name in read_variables(file)}
    # The built-in plugins are known once the configuration's modules are imported.
    import_module("epp.scheduling.configuration.config")
    read |= {variable for kind in plugin_types().values() for variable in kind.environment}
    told = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert {"HEADROOM_PARENT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "SLO_STRATEGY"} <= read
    assert {name for name in read - WITHOUT_DOCUMENTATION if not re.search(rf"\b{name}\b", told)} == set()


def test_variables_are_found_in_code(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        'A, B = "FIRST", "SECOND"\nC: Final = "THIRD"\n'
        "os.environ.get(A), environ[B], C in os.environ, os.getenv('FOURTH')\nos.environ['WRITTEN'] = '1'\n"
    )
    assert read_variables(file) == {"FIRST", "SECOND", "THIRD", "FOURTH"}
