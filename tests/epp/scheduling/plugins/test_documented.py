"""docs/plugins.md says what the registry holds, and the example of docs/extend.md runs as a package of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from epp.scheduling.configuration.config import load_scheduler
from epp.scheduling.configuration.parameters import defaults
from epp.scheduling.configuration.refused import REFUSED
from epp.scheduling.configuration.warnings import find_warnings
from epp.scheduling.plugin import kind_names, plugin_types
from epp.scheduling.plugins.prefix import PrefixParameters
from epp.scheduling.request import Request
from tests.live import PATIENCE_S

ROOT = Path(__file__).parents[4]
DOCUMENT = (ROOT / "docs" / "plugins.md").read_text()
EXTENDING = (ROOT / "docs" / "extend.md").read_text()
FENCES = re.findall(r"```(python|yaml|toml)\n(.*?)```", DOCUMENT + EXTENDING, re.DOTALL)
CONFIGURATIONS = [text for language, text in FENCES if language == "yaml" and text.startswith("apiVersion")]

WITHOUT_PREDICTIONS = CONFIGURATIONS[1]


def table_of_types() -> list[str]:
    """Return a row for each plugin type: names, kinds, parameters with defaults, first sentence."""
    classes = {cls.type_name: cls for cls in plugin_types().values() if cls.__module__.startswith("epp.")}
    rows = []
    for type_name, cls in sorted(classes.items()):
        names = [
            type_name,
            *sorted(name for name, known in plugin_types().items() if known is cls and name != type_name),
        ]
        parameters = [_parameter(name, value) for name, value in defaults(cls).items() if name not in cls.unsupported]
        summary = (cls.__doc__ or "").strip().partition("\n")[0]
        named = ", ".join(f"`{name}`" for name in names)
        rows.append(f"| {named} | {', '.join(kind_names(cls))} | {', '.join(parameters) or 'none'} | {summary} |")
    return rows


def _parameter(name: str, value: object) -> str:
    return f"`{name}` (needed)" if value is msgspec.NODEFAULT else f"`{name}` {msgspec.json.encode(value).decode()}"


def test_the_table_of_types_is_the_registry_s() -> None:
    documented = [line for line in DOCUMENT.splitlines() if re.match(r"\| `[a-z-]+`.* \| .* \| .* \|", line)]
    assert [row for row in documented if row.count(" | ") == 3] == table_of_types()


def test_the_table_of_refused_types_is_the_loader_s() -> None:
    rows = [line for line in DOCUMENT.splitlines() if re.fullmatch(r"\| `[a-z0-9-]+` \| [^|]* \|", line)]
    assert rows == [f"| `{name}` | {reason} |" for name, reason in sorted(REFUSED.items())]


def test_the_table_of_variables_is_the_registry_s() -> None:
    rows = [line for line in DOCUMENT.splitlines() if re.match(r"\| `[A-Z_]+` \|", line)]
    expected = [
        f"| `{variable}` | `{cls.type_name}` | `{parameter}` |"
        for cls in sorted(set(plugin_types().values()), key=lambda cls: cls.type_name)
        for variable, parameter in cls.environment.items()
    ]
    assert rows == expected


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_the_configurations_load_without_warnings(text: str) -> None:
    scheduler = load_scheduler(text, {})
    assert scheduler.wants_predictions(Request("1", "m", prediction_based=True)) == (text != WITHOUT_PREDICTIONS)
    assert list(find_warnings(scheduler)) == []


def test_the_preset_sizes_the_index_as_the_text_says() -> None:
    assert load_scheduler(CONFIGURATIONS[2], {}).prefix == PrefixParameters(256, 2048, 31_250)


PROGRAM = """
import numpy as np
from epp.scheduling.configuration.config import load_scheduler
from epp.scheduling.request import Request
from tests.epp.scheduling.snapshots import build_snapshot

text = '''{configuration}'''
scheduler = load_scheduler(text, {{}})
pool = build_snapshot(3, running=[4, 0, 9], in_flight=[4, 0, 9])
decision = scheduler.schedule(Request("1", "m"), pool, np.random.default_rng(1))
print(decision.endpoints[0].name, decision.result.scores.tolist())
"""

CONFIGURATION = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: idle-scorer
  parameters: {exponent: 2}
"""


def install(folder: Path, module: str) -> None:
    """Install a package with this module and with the entry point that the document shows."""
    (folder / "my_plugins.py").write_text(module)
    (folder / "my_plugins-1.0.dist-info").mkdir()
    (folder / "my_plugins-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-plugins\nVersion: 1.0\n"
    )
    (project,) = (text for language, text in FENCES if language == "toml")
    group, value = re.fullmatch(r'\[project\.entry-points\."(.*)"\]\n(.*) = "(.*)"\n', project).groups()[::2]  # type: ignore[union-attr]
    (folder / "my_plugins-1.0.dist-info" / "entry_points.txt").write_text(f"[{group}]\nmine = {value}\n")


def run(folder: Path, configuration: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(configuration=configuration)
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environ
    )


def test_the_example_runs_as_an_installed_package(tmp_path: Path) -> None:
    (example,) = (text for language, text in FENCES if language == "python")
    assert len(example.splitlines()) <= 12
    install(tmp_path, example)
    ran = run(tmp_path, CONFIGURATION)
    assert ran.stderr == ""
    assert ran.stdout == f"pod-1 {[1 / 25, 1.0, 1 / 100]}\n"


def test_a_package_that_can_t_be_loaded_is_named(tmp_path: Path) -> None:
    install(tmp_path, "import nothing_of_this_name\n")
    ran = run(tmp_path, CONFIGURATION)
    assert (
        "ConfigError: the plugins of entry point 'mine' (my_plugins) can't be loaded: ModuleNotFoundError" in ran.stderr
    )
