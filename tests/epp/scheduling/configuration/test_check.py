import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from epp.check import check
from epp.scheduling.configuration.config import DEFAULT_CONFIG
from tests.epp.scheduling.configuration.test_config import HEAD, PRESET, QUEUE, SEED, profile
from tests.live import PATIENCE_S


def run(text: str, **environ: str) -> Result:
    variables = dict.fromkeys(("SLO_BUFFER_FACTOR", "STICKY_EPSILON"), "") | environ
    return CliRunner().invoke(check, ["-"], input=text, env=variables)


def test_the_command_names_file_line_and_path(tmp_path: Path) -> None:
    file = tmp_path / "slo.yaml"
    file.write_text(QUEUE + "- type: slo-scorer\n  parameters:\n    stickyEpsilon: 2\n")
    ran = subprocess.run(
        [sys.executable, "-m", "epp", "check", file], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr == f"{file}:7: $.plugins[1].parameters.stickyEpsilon: Expected `float` <= 1.0\n"
    assert ran.stdout == ""


def test_a_file_of_default_objectives_is_described() -> None:
    rules = "objectives:\n- {model: chat, headers: {x-tier: gold}, ttftMs: 200, tpotMs: 20.5}\n- ttftMs: 1000\n"
    result = run(rules)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "model chat and x-tier: gold: TTFT 200 ms, TPOT 20.5 ms",
        "all: TTFT 1000 ms",
    ]
    assert run(rules.replace("1000", "fast")).output.startswith("<stdin>:3: $.objectives[1].ttftMs: Expected `float")


def test_the_built_in_configuration_is_described() -> None:
    result = run(DEFAULT_CONFIG, SLO_BUFFER_FACTOR="0.9")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "profile handler: slo-aware-profile-handler",
        "profile default:",
        "  scorer queue-scorer, weight 1",
        "  scorer kv-cache-utilization-scorer, weight 1",
        "  scorer prefix-cache-scorer, weight 1",
        "  picker max-score-picker",
        "profile slo:",
        "  scorer prefix-cache-scorer, weight 0",
        '  scorer slo-scorer {"sloBufferFactor":0.9}, weight 1',
        "  picker max-score-picker",
        'admission: utilization-detector, slo-scorer {"sloBufferFactor":0.9}',
        "prefix index: blocks of 64 bytes, 256 of a prompt looked at, 31250 kept for each endpoint of unknown size",
        "predictions: needed by profile slo; start with --enable-latency-predictor",
        "environment: SLO_BUFFER_FACTOR=0.9",
    ]


def test_the_presets_description_names_its_ignored_parameters() -> None:
    result = run(PRESET)
    assert result.exit_code == 0
    assert '  filter strict (prefix-cache-affinity-filter) {"affinityThreshold":0.99,' in result.output
    assert "predictions: for every request" in result.output
    assert "notice: predicted-latency-producer: streamingMode is off" in result.output
    assert "warning" not in result.stderr


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (SEED, "declare prefix-cache-scorer, and refer to it here with weight 0"),
        (
            SEED.replace("- type: slo-r", "- type: prefix-cache-scorer\n- type: slo-r").replace(
                "  - pluginRef: slo-r", "  - pluginRef: prefix-cache-scorer\n  - pluginRef: slo-r"
            ),
            "prefix-cache-scorer with weight 1 can outvote the draw",
        ),
        (QUEUE + profile("pluginRef: queue-scorer").replace("name: a", "name: slo"), "declare one"),
        (QUEUE + profile("{pluginRef: queue-scorer, weight: 0}"), "every weight is 0"),
        (QUEUE + "- type: random-picker\n" + profile("pluginRef: queue-scorer", "pluginRef: random-picker"), None),
        (
            QUEUE + "- type: load-aware-scorer\n" + profile("pluginRef: queue-scorer"),
            "load-aware-scorer: declared, but",
        ),
        (QUEUE + "- type: latency-scorer\n", "use weighted-random-picker"),
        (
            QUEUE + "- type: latency-scorer\n- type: weighted-random-picker\n"
            "- {type: predicted-latency-producer, parameters: {predictInProduce: false, streamingMode: true}}\n",
            "never get any",
        ),
        (QUEUE, None),
    ],
)
def test_probable_mistakes_give_a_warning(text: str, warning: str | None) -> None:
    result = run(text)
    assert result.exit_code == 0
    assert result.stderr.count("warning: ") == (warning is not None)
    assert warning is None or warning in result.stderr


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [
        ("a: [", {}, "<stdin>:1: $: not YAML"),
        ("", {}, "<stdin>:1: $: the configuration is empty"),
        (HEAD + "plugins:\n- type: queue-scorer\n  name: 3\n", {}, "<stdin>:5: $.plugins[0].name: Expected `str`"),
        (DEFAULT_CONFIG, {"STICKY_EPSILON": "x"}, "<stdin>: environment variable STICKY_EPSILON='x': "),
    ],
)
def test_an_error_begins_with_its_place(text: str, environ: dict[str, str], message: str) -> None:
    result = run(text, **environ)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stdout == ""


def test_the_error_about_a_missing_file_names_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(check, [str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert "none.yaml: No such file or directory" in result.stderr
    (tmp_path / "latin").write_bytes(b"a: \xe9\n")
    assert "not UTF-8" in CliRunner().invoke(check, [str(tmp_path / "latin")]).stderr


def test_shed_all_is_described_and_has_no_effect_on_the_reference() -> None:
    shedding = DEFAULT_CONFIG.replace("- type: slo-scorer\n", "- type: slo-scorer\n  parameters: {shed: all}\n", 1)
    assert 'admission: utilization-detector, slo-scorer {"shed":"all"}\n' in run(shedding).output
    other = run(shedding.replace("shed: all", "shed: all, strategy: reference"))
    assert "notice: slo-scorer: shed: no effect except with strategy: attainment\n" in other.output
    refused = run(shedding.replace("shed: all", "shed: some"))
    assert (refused.exit_code, refused.stderr) == (
        1,
        "<stdin>:9: $.plugins[4].parameters.shed: Invalid enum value 'some'\n",
    )
