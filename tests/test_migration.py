"""docs/migrate.md is true: each row of its tables agrees with the code, and no name of the replaced servers is missing.

tests/peer_names.yaml has those names, and says how they were gathered.
"""

import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import jsonschema_rs
import msgspec
import pytest
import yaml
from click.testing import CliRunner
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.trace import sampling

from epp.check import check
from epp.environment import UNUSED as PICKER_UNUSED
from epp.kubernetes.access import own_identity
from epp.options import WITHOUT_EFFECT
from epp.request import tracing
from epp.scheduling.configuration.parameters import instantiate
from epp.scheduling.configuration.refused import REFUSED
from epp.scheduling.plugin import Plugin, plugin_types
from predictor.app import create_app as create_predictor
from predictor.config import Config as PredictorConfig
from predictor.environment import UNUSED as PREDICTOR_UNUSED
from tests.epp.process import picker_process
from tests.live import PATIENCE_S, call, live
from tests.predictor.test_sidecar import ROW
from tests.test_documented_flags import default_of, options
from trainer.app import create_app as create_trainer
from trainer.config import Config as TrainerConfig
from trainer.environment import UNUSED as TRAINER_UNUSED

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "migrate.md").read_text()
PEERS = yaml.safe_load((Path(__file__).parent / "peer_names.yaml").read_text())
CHART = ROOT / "helm" / "inferencepool"
UNUSED: Mapping[str, Mapping[str, str]] = {
    "epp": PICKER_UNUSED,
    "trainer": TRAINER_UNUSED,
    "predictor": PREDICTOR_UNUSED,
}
CODE = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of all rows under a heading, up to the next heading, without those of the legend."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    tables = re.findall(r"(?:^\|.*\|\n)+", found[1], re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in tables[-1].splitlines()[2:]]


def by_name(heading: str) -> dict[str, list[str]]:
    """Return the further cells of each row by the names in its first cell; no name may stand twice."""
    named = [(name, cells[1:]) for cells in rows(heading) for name in CODE.findall(cells[0])]
    assert [name for name, count in Counter(name for name, _ in named).items() if count > 1] == []
    return dict(named)


def names_of_peers(kind: str) -> set[str]:
    return {name for group in PEERS[kind].values() for name in group}


FLAGS = by_name("Go pickers: flags")
TYPES = by_name("Go pickers: plugin types")
VARIABLES = {
    "epp": by_name("Go pickers: variables"),
    "trainer": by_name("llm-d-latency-predictor: variables of the training server"),
    "predictor": by_name("llm-d-latency-predictor: variables of the prediction server"),
}
ENDPOINTS = [
    (cells[0], endpoint, cells[2])
    for cells in rows("llm-d-latency-predictor: endpoints")
    for endpoint in CODE.findall(cells[1])
]
VALUES = by_name("Chart values")


def test_every_name_of_the_replaced_servers_has_a_row() -> None:
    assert set(FLAGS) == {f"--{name}" for name in names_of_peers("flags")}
    assert set(TYPES) == names_of_peers("plugin_types")
    assert set(VALUES) == names_of_peers("chart_values")
    assert set(VARIABLES["epp"]) == set(PEERS["variables"])
    for server, part in (("trainer", "training"), ("predictor", "prediction")):
        peer = PEERS["latency_predictor"][part]
        assert set(VARIABLES[server]) == set(peer["variables"])
        assert sorted(endpoint for name, endpoint, _ in ENDPOINTS if name == part) == sorted(peer["endpoints"])
    fields = rows("Go pickers: fields of the configuration")
    assert {CODE.findall(cells[0])[0] for cells in fields} == set(PEERS["config_fields"])
    gates = {gate for cells in fields for gate in re.findall(r"featureGates: \[(\w+)\]", cells[1])}
    assert gates == set(PEERS["feature_gates"])


def test_a_row_says_whose_flag_it_is() -> None:
    whose = {"both": "GIE, llm-d", "GIE": "GIE", "llm-d": "llm-d"}
    expected = {f"--{name}": whose[group] for group, names in PEERS["flags"].items() for name in names}
    assert {flag: cells[0] for flag, cells in FLAGS.items()} == expected


def test_flags_are_there_or_have_no_effect() -> None:
    known, without_effect = options("epp"), {f"--{name.replace('_', '-')}" for name in WITHOUT_EFFECT}
    for flag, (_, here, note) in FLAGS.items():
        assert (flag in known, flag in without_effect) == (here == "same", here == "no effect"), flag
        for default in re.findall(r"default here `([^`]*)`", note):
            assert default_of(known[flag]) == default, flag


@pytest.mark.parametrize("server", VARIABLES)
def test_variables_are_read_or_have_no_effect(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_variable = options_by_variable(server)
    for variable, (here, note) in VARIABLES[server].items():
        assert here in {"same", "no effect", "not read"}, variable
        assert (variable in UNUSED[server]) == (here == "no effect"), variable
        assert is_read(server, variable, monkeypatch) == (here == "same"), variable
        for default in re.findall(r"default here `([^`]*)`", note):
            assert default_of(by_variable[variable]) == default, variable


def test_flags_and_variables_without_effect_are_accepted_and_logged(tmp_path: Path) -> None:
    flags = [flag for flag, cells in FLAGS.items() if cells[1] == "no effect"]
    variables = [variable for variable, cells in VARIABLES["epp"].items() if cells[0] == "no effect"]
    with picker_process(tmp_path, *(f"{flag}=1" for flag in flags), env=dict.fromkeys(variables, "1")) as picker:
        page, log = picker.metrics(), picker.log.read_text()
    assert [flag for flag in flags if f"{flag} has no effect: " not in log] == []
    assert [variable for variable in variables if f"{variable} is set and not used: " not in log] == []
    check_metrics(page)


def check_metrics(page: str) -> None:
    """Check that the page has the metrics of the table's first column, and the peers have those of the others."""
    table = [[CODE.findall(cell)[0] for cell in cells] for cells in rows("Metrics")]
    shown = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    assert [cells[0] for cells in table if cells[0] not in shown] == []
    for column, peer in enumerate(("GIE 1.0", "GIE 1.1 to 1.5", "llm-d")):
        assert {cells[column] for cells in table} <= set(PEERS["metrics"][peer])


def test_values_to_write_in_another_way_are_refused_by_name() -> None:
    table = [[CODE.findall(cell)[0] for cell in cells] for cells in rows("Values to write in another way")]
    environment = os.environ | {"KUBECONFIG": os.devnull}
    command = [sys.executable, "-m", "epp", "--endpoint-target-ports=8000"]
    started = {
        theirs: subprocess.Popen([*command, theirs], stderr=subprocess.PIPE, text=True, env=environment)
        for theirs, _ in table
    }
    for theirs, ours in table:
        _, errors = started[theirs].communicate(timeout=PATIENCE_S)
        name = re.split("[= ]", theirs)[0]
        assert started[theirs].returncode != 0
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", errors.strip().splitlines()[-1]), errors
        import_module("epp.__main__").main.make_context("epp", [ours])


def test_plugin_types_are_registered_or_refused() -> None:
    registered = plugin_types()
    for name, (here, note) in TYPES.items():
        assert here in {"same", "other name", "not there"}, name
        assert (name in registered) == (here == "same"), name
        if here == "same":
            continue
        status, output = checked(f"plugins: [{{type: {name}}}]")
        is_unknown = f"unknown plugin type '{name}'" in output
        assert (status, is_unknown, name in output) == (1, here == "other name", True), name
        assert here != "other name" or set(CODE.findall(note)) <= set(registered), name
        for other in CODE.findall(note):
            assert other in registered or other not in {*REFUSED, *TYPES}, f"{name}: {other}"
            assert other.partition(" ")[0] in options("epp") or not other.startswith("--"), f"{name}: {other}"


def test_refused_parameters_are_refused_and_no_others() -> None:
    refused = {(name, parameter) for name, cls in plugin_types().items() for parameter in cls.unsupported}
    table = [[CODE.findall(cell) for cell in cells] for cells in rows("Parameters that are refused")]
    assert {(name, parameter) for types, names, _ in table for name in types for parameter in names} == refused
    flags = [flag for *_, written in table for flag in written]
    assert [flag for flag in flags if flag not in options("epp")] == []


def test_fields_of_the_configuration_do_what_the_table_says() -> None:
    for field, example, here in rows("Go pickers: fields of the configuration"):
        name, (text,) = CODE.findall(field)[0], CODE.findall(example)
        assert nested(yaml.safe_load(text), name) is not None
        status, output = checked(text if name == "plugins" else f"plugins: [{{type: queue-scorer}}]\n{text}")
        noticed = f"notice: $.{name.partition('.')[0]}" in output
        assert (status, noticed) == {"same": (0, False), "no effect": (0, True), "refused": (1, False)}[here], text


def test_custom_resources_are_those_that_the_picker_asks_for() -> None:
    rules = (ROOT / "docs" / "kubernetes.md").read_text()
    for resource, here in rows("Custom resources"):
        plural, _, group = resource.strip("`").partition(".")
        granted = re.search(rf"apiGroups: \[{re.escape(group)}\]\n    resources: \[[^\]]*\b{plural}\b", rules)
        assert bool(granted) == (here == "read"), resource


def test_chart_values_are_accepted_or_refused() -> None:
    for name, (here, instead) in VALUES.items():
        found = refusals(name)
        assert (found == []) == (here == "same"), f"{name}: {found}"
        assert here == "same" or "dditional properties" in found[0], found
        # A name with a dot is a value of the chart; other names are flags and the like.
        paths = [path for path in CODE.findall(instead) if re.fullmatch(r"\w+(\.\w+)+", path)]
        assert [path for path in paths if refusals(path)] == [], name
    assert refusals("inferenceExtension.flags", {"v": 1})
    assert refusals("inferenceExtension.flags", [{"name": "v", "value": 1}]) == []
    assert refusals("inferenceExtension.image.registry", "registry.k8s.io")
    assert refusals("inferenceExtension.image.repository", "epp")


def refusals(path: str, value: Any = None) -> list[str]:
    """Return why the chart's schema refuses its defaults with a value at a path: by default the chart's own, or {}."""
    validator = jsonschema_rs.validator_for(json.loads((CHART / "values.schema.json").read_text()))
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    values["inferencePool"]["modelServers"]["matchLabels"] = {"app": "vllm"}
    own = nested(values, path)
    if value is None:
        value = {} if own is None else own
    return [error.message for error in validator.iter_errors(merged(values, path, value))]


def test_every_endpoint_answers(tmp_path: Path) -> None:
    trainer = TrainerConfig(**parsed("trainer", tmp_path))
    values = {name: value for name, value in parsed("predictor", tmp_path).items() if name != "workers"}
    predictor = PredictorConfig(**{**values, "grpc_port": 0})
    with live(create_trainer(trainer)) as training, live(create_predictor(predictor)) as prediction:
        urls = {"training": training, "prediction": prediction}
        for server, endpoint, note in ENDPOINTS:
            status = ask(urls[server], endpoint)
            assert status is not None, endpoint
            if "503 without models" in note:
                assert status == 503, endpoint
        assert [ask(url, f"{method} /no-such") for url in urls.values() for method in ("GET", "POST")] == [None] * 4


def ask(url: str, endpoint: str) -> int | None:
    """Return the status of the answer, None if there is no such endpoint."""
    method, _, path = endpoint.partition(" ")
    body = {"requests": [ROW]} if "bulk" in path else ROW
    status, answer = call(url + path.format(model_name="ttft"), body if method == "POST" else None)
    return None if status == 405 or (status == 404 and "Not Found" in str(answer)) else status


def parsed(server: str, store: Path) -> dict[str, Any]:
    """Return the values of the server's flags, with a store in `store`."""
    command: click.Command = import_module(f"{server}.__main__").main
    return command.make_context(server, ["--model-store", str(store)]).params


def options_by_variable(server: str) -> dict[str, click.Option]:
    found = {}
    for option in options(server).values():
        names = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
        found.update(dict.fromkeys(names, option))
    return found


def is_read(server: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether the server reads the variable: as a flag's, a plugin's, its own name's, or OpenTelemetry's."""
    option = options_by_variable(server).get(variable)
    if option is not None:
        return changes(server, option, variable, monkeypatch)
    if server != "epp":
        return False
    if variable == "POD_NAME":
        return own_identity({variable: "pod-7"}) == "pod-7"
    readers = [cls for cls in plugin_types().values() if variable in cls.environment]
    if readers:
        return all(changes_plugin(cls, variable) for cls in readers)
    return any(variable in inspect.getsource(module) for module in (tracing, trace_exporter, sampling))


def changes(server: str, option: click.Option, variable: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether another value of the variable than the default becomes the flag's value."""
    match option.type, option.default:
        case click.Choice() as choice, default:
            other = next(value for value in choice.choices if value != default)
        case _, bool(default):
            other = not default
        case _, int(default) | float(default):
            other = default / 2 if default < 1 else default + 1
        case _, None:
            other = 7
        case _:
            other = "elsewhere"
    monkeypatch.setenv(variable, str(other))
    command: click.Command = import_module(f"{server}.__main__").main
    value = command.make_context(server, []).params[str(option.name)]
    monkeypatch.delenv(variable)
    return bool(value == other)


def changes_plugin(cls: type[Plugin], variable: str) -> bool:
    """Return whether the variable sets the plugin's parameter."""
    parameter = cls.environment[variable]
    field = next(field for field in msgspec.structs.fields(cls) if field.encode_name == parameter)
    match field.default:
        case "least":
            text = "most"
        case str():
            text = "150ms"
        case default:
            text = str(type(default)(default / 2 if isinstance(default, float) else default + 1))
    given, without = (getattr(instantiate(cls, {}, env), field.name) for env in ({variable: text}, {}))
    return bool(given != without)


def checked(text: str) -> tuple[int, str]:
    """Return the exit status and output of `python -m epp check` for a configuration with these fields."""
    head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    result = CliRunner().invoke(check, ["-"], input=head + text)
    return result.exit_code, result.output


def nested(value: Any, path: str) -> Any:
    """Return the value at a path of keys, None if there is none."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def merged(defaults: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the defaults with another value at a path."""
    key, _, rest = path.partition(".")
    return {**defaults, key: merged(defaults.get(key, {}), rest, value) if rest else value}
