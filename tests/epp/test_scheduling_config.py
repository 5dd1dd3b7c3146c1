import numpy as np
import pytest

from epp.exceptions import ConfigError
from epp.scheduling.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.plugins.slo import SloScorer
from epp.scheduling.request import Request
from tests.epp.snapshots import build_snapshot

HEAD = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"


def test_the_built_in_configuration_has_both_profiles() -> None:
    assert set(load_scheduler(DEFAULT_CONFIG, {}).profiles) == {"default", "slo"}


def test_a_configuration_with_an_slo_profile_alone_gets_a_default_one() -> None:
    text = HEAD + (
        "plugins:\n- type: slo-request-tracker\n- type: slo-scorer\n- type: slo-aware-profile-handler\n"
        "schedulingProfiles:\n- name: slo\n  plugins:\n  - pluginRef: slo-request-tracker\n  - pluginRef: slo-scorer\n"
    )
    scheduler = load_scheduler(text, {})
    assert not scheduler.profiles["default"].needs_predictions
    assert scheduler.profiles["slo"].needs_predictions


def test_without_profiles_all_plugins_make_one() -> None:
    scheduler = load_scheduler(HEAD + "plugins:\n- type: queue-scorer\n- type: random-picker\n", {})
    assert list(scheduler.profiles) == ["default"]


def test_parameters_come_from_the_environment_and_the_file_wins() -> None:
    environ = {"STICKY_EPSILON": "0.25", "SLO_BUFFER_FACTOR": "0.5"}
    text = DEFAULT_CONFIG.replace("- type: slo-scorer\n", "- type: slo-scorer\n  parameters: {stickyEpsilon: 0.5}\n")
    scorers = (weighted.scorer for weighted in load_scheduler(text, environ).profiles["slo"].scorers)
    scorer = next(scorer for scorer in scorers if isinstance(scorer, SloScorer))
    assert (scorer.sticky_epsilon, scorer.slo_buffer_factor) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Expected `object`"),
        ("a: [", "not YAML"),
        (HEAD.replace("v1alpha1", "v9"), "apiVersion"),
        (HEAD.replace("EndpointPickerConfig", "Pod"), "kind"),
        (HEAD + "extra: 1\n", "extra"),
        (HEAD + "plugins:\n- type: nonsense\n", r"\$\.plugins\[0\]\.type.*nonsense"),
        (HEAD + "plugins:\n- type: queue-scorer\n- type: queue-scorer\n", "declared twice"),
        (HEAD + "plugins:\n- type: queue-scorer\n  parameters: {x: 1}\n", r"plugins\[0\]\.parameters.*`x`"),
        (HEAD + "plugins:\n- type: slo-scorer\n  parameters: {stickyEpsilon: 2}\n", "stickyEpsilon"),
        (HEAD + "plugins: []\nschedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: x\n", "'x' names no declared"),
        (HEAD + "plugins:\n- type: random-picker\n- type: max-score-picker\n", "two pickers"),
        (HEAD + "plugins: []\nschedulingProfiles:\n- name: a\n- name: b\n", "profile handler"),
        (HEAD + "plugins: []\nschedulingProfiles:\n- name: a\n- name: a\n", "two profiles"),
        (HEAD + "plugins:\n- type: slo-aware-profile-handler\n", "profile named slo"),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_scheduler(text, {})


def test_a_bad_environment_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="HEADROOM_SELECTION_STRATEGY"):
        load_scheduler(DEFAULT_CONFIG, {"HEADROOM_SELECTION_STRATEGY": "sometimes"})


def test_without_predictions_the_default_profile_decides() -> None:
    scheduler = load_scheduler(DEFAULT_CONFIG, {})
    pool = build_snapshot(2, waiting=[5, 0])
    decision = scheduler.schedule(Request("1", "m", prediction_based=True), pool, np.random.default_rng(1))
    assert decision is not None
    assert (decision.wanted_profile, decision.profile, decision.chosen) == ("slo", "default", 1)


def test_the_testing_filter_leaves_the_listed_endpoints() -> None:
    scheduler = load_scheduler(HEAD + "plugins:\n- type: header-based-testing-filter\n- type: queue-scorer\n", {})
    pool, rng = build_snapshot(3), np.random.default_rng(1)
    listed = Request("1", "m", headers={"test-epp-endpoint-selection": "10.0.0.2"})
    decision = scheduler.schedule(listed, pool, rng)
    assert decision is not None
    assert decision.endpoints[0].name == "pod-2"
    assert scheduler.schedule(Request("2", "m"), pool, rng) is None
