import contextlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.exceptions import ConfigError
from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.configuration.document import DocumentError
from epp.scheduling.configuration.refused import REFUSED
from epp.scheduling.plugin import plugin_types
from epp.scheduling.plugins.admission import UtilizationDetector
from epp.scheduling.plugins.latency import LatencyScorer, LatencySloAdmitter
from epp.scheduling.plugins.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker
from epp.scheduling.plugins.prefix import PrefixParameters
from epp.scheduling.plugins.profiles import SingleProfileHandler
from epp.scheduling.plugins.slo import SloScorer
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Decision, Refusal, Scheduler
from tests.epp.scheduling.snapshots import build_snapshot

HEAD = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
LLM_D = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
ONE = "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n"


def load(text: str, **environ: str) -> Scheduler:
    return load_scheduler(text, environ)


def slo_scorer(scheduler: Scheduler) -> SloScorer:
    scorers = (weighted.scorer for weighted in scheduler.profiles["slo"].scorers)
    return next(scorer for scorer in scorers if isinstance(scorer, SloScorer))


def detector(scheduler: Scheduler) -> UtilizationDetector:
    return next(a for a in scheduler.admitters if isinstance(a, UtilizationDetector))


def test_the_built_in_configuration_has_both_profiles_and_decides_by_attainment() -> None:
    scheduler = load(DEFAULT_CONFIG)
    assert set(scheduler.profiles) == {"default", "slo"}
    assert slo_scorer(scheduler).strategy == "attainment"
    assert not scheduler.notices
    assert not scheduler.wants_predictions(Request("1", "m"))
    assert scheduler.wants_predictions(Request("1", "m", prediction_based=True))


def test_the_environment_wins_over_the_built_in_configuration() -> None:
    scheduler = load(DEFAULT_CONFIG, SLO_STRATEGY="reference", HEADROOM_SELECTION_STRATEGY="most")
    assert slo_scorer(scheduler).strategy == "reference"
    assert slo_scorer(scheduler).headroom_selection_strategy == "most"
    assert not scheduler.notices


def test_parameters_of_the_other_strategy_give_a_notice() -> None:
    scheduler = load(DEFAULT_CONFIG, STICKY_EPSILON="0.2", NEG_HEADROOM_TTFT_WEIGHT="0.5")
    expected = "slo-scorer: negHeadroomTtftWeight, stickyEpsilon: no effect except with strategy: reference"
    assert scheduler.notices == (expected,)


SEED = HEAD + (
    "plugins:\n- type: slo-request-tracker\n- type: slo-scorer\n- type: slo-aware-profile-handler\n"
    "schedulingProfiles:\n- name: slo\n  plugins:\n  - pluginRef: slo-request-tracker\n  - pluginRef: slo-scorer\n"
)


def test_a_configuration_with_an_slo_profile_alone_gets_a_default_one() -> None:
    scheduler = load(SEED)
    assert not scheduler.profiles["default"].needs_predictions
    assert scheduler.profiles["slo"].needs_predictions


def test_without_profiles_all_plugins_make_one() -> None:
    scheduler = load(HEAD + "plugins:\n- type: queue-scorer\n- type: random-picker\n- type: decode-filter\n")
    profile = scheduler.profiles["default"]
    assert isinstance(scheduler.handler, SingleProfileHandler)
    assert [w.name for w in profile.scorers] == ["queue-scorer"]
    assert len(profile.filters) == 1
    assert isinstance(profile.picker, RandomPicker)


def test_a_profile_without_a_picker_takes_a_declared_one_or_the_highest_score() -> None:
    assert isinstance(load(HEAD + ONE).profiles["default"].picker, MaxScorePicker)
    text = HEAD + ONE.replace("queue-scorer\nsched", "queue-scorer\n- type: weighted-random-picker\nsched")
    assert isinstance(load(text).profiles["default"].picker, WeightedRandomPicker)


def test_a_scorer_without_a_weight_has_weight_1_wherever_it_stands() -> None:
    text = HEAD + (
        "plugins:\n- {type: queue-scorer, name: q}\n- type: max-score-picker\n- type: load-aware-scorer\n"
        "schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: max-score-picker\n  - pluginRef: q\n"
        "  - {pluginRef: load-aware-scorer, weight: 2.5}\n"
    )
    scorers = load(text).profiles["default"].scorers
    assert [(w.name, w.weight) for w in scorers] == [("q", 1.0), ("load-aware-scorer", 2.5)]


def test_parameters_come_from_the_environment_and_the_file_wins() -> None:
    text = DEFAULT_CONFIG.replace("slo-scorer\n", "slo-scorer\n  parameters:\n    stickyEpsilon: 0.5\n", 1)
    scorer = slo_scorer(load(text, STICKY_EPSILON="0.25", SLO_BUFFER_FACTOR=" 0.5 ", AFFINITY_GATE_TAU=""))
    assert (scorer.sticky_epsilon, scorer.slo_buffer_factor, scorer.affinity_gate_tau) == (0.5, 0.5, 0.8)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADROOM_SELECTION_STRATEGY", "sometimes"),
        ("SLO_BUFFER_FACTOR", "nan"),
        ("SLO_BUFFER_FACTOR", "0"),
        ("HEADROOM_TTFT_WEIGHT", "-1"),
        ("NEG_HEADROOM_TPOT_WEIGHT", "inf"),
        ("STICKY_EPSILON", "1.5"),
        ("AFFINITY_GATE_TAU_GLOBAL", "high"),
        ("SD_QUEUE_DEPTH_THRESHOLD", "0"),
        ("SD_KV_CACHE_UTIL_THRESHOLD", "80"),
        ("SD_METRICS_STALENESS_THRESHOLD", "200"),
        ("SD_METRICS_STALENESS_THRESHOLD", "0s"),
    ],
)
def test_a_bad_environment_variable_is_named_though_the_file_has_the_parameter(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"environment variable {variable}='{value}': .{{10}}"):
        load(DEFAULT_CONFIG, **{variable: value})


def profile(*lines: str) -> str:
    return "schedulingProfiles:\n- name: a\n  plugins:\n" + "".join(f"  - {line}\n" for line in lines)


QUEUE = HEAD + "plugins:\n- type: queue-scorer\n"


@pytest.mark.parametrize(
    ("text", "line", "path", "problem"),
    [
        ("[]", 1, "$", "Expected `object`"),
        ("kind: x\n", 1, "$", "missing required field `apiVersion`"),
        (HEAD.replace("v1alpha1", "v9"), 1, "$.apiVersion", "expected inference.networking"),
        (HEAD.replace("inference.networking.x-k8s.io/v1alpha1", "llm-d.ai/v1"), 1, "$.apiVersion", "llm-d.ai/v1alpha1"),
        (HEAD.replace("EndpointPickerConfig", "Pod"), 2, "$.kind", "expected EndpointPickerConfig"),
        (HEAD + "extra: 1\n", 3, "$.extra", "unknown field"),
        (HEAD + "plugins: 3\n", 3, "$.plugins", "Expected `array`"),
        (HEAD + "plugins:\n- name: a\n", 4, "$.plugins[0]", "missing required field `type`"),
        (HEAD + "plugins:\n- type: a\n  parameter: {}\n", 5, "$.plugins[0].parameter", "unknown field"),
        (HEAD + "plugins:\n- type: nonsense\n", 4, "$.plugins[0].type", "unknown plugin type 'nonsense'; known: "),
        (HEAD + "plugins:\n- type: queue-score\n", 4, "$.plugins[0].type", "; did you mean 'queue-scorer'?"),
        (
            HEAD + "plugins:\n- {type: queue-scorer, parameters: {a: 1}}\n",
            4,
            "$.plugins[0].parameters.a",
            "known: none",
        ),
        (QUEUE + "- type: queue-scorer\n", 5, "$.plugins[1]", "declared twice"),
        (QUEUE + "- {type: load-aware-scorer, name: queue-scorer}\n", 5, "$.plugins[1]", "declared twice"),
        (
            HEAD + "plugins:\n- type: prefix-cache-scorer\n  parameters:\n    hashBlockSize: 64\n    lru: 1\n",
            7,
            "$.plugins[0].parameters.lru",
            "unknown field; known: hashBlockSize, ",
        ),
        (
            HEAD + "plugins:\n- type: slo-scorer\n  parameters:\n    stickyEpsilon: 2\n",
            6,
            "$.plugins[0].parameters.stickyEpsilon",
            "<= 1",
        ),
        (
            HEAD
            + "plugins:\n- type: utilization-filter\n  parameters:\n    conditions:\n    - {metric: x, maxValue: 1}\n",
            7,
            "$.plugins[0].parameters.conditions[0].metric",
            "Invalid enum value 'x'",
        ),
        (HEAD + "plugins:\n- type: by-label\n", 4, "$.plugins[0].parameters", "missing required field `label`"),
        (HEAD + "plugins:\n- type: by-label\n  parameters: {label: a}\n", 5, "$.plugins[0].parameters", "validValues"),
        (
            HEAD + "plugins:\n- type: prefix-cache-affinity-filter\n  parameters: {peakPrefillThroughput: 0}\n",
            5,
            "$.plugins[0].parameters",
            "greater than 0",
        ),
        (
            HEAD + "plugins:\n- type: metrics-data-source\n  parameters:\n    path: /m\n",
            6,
            "$.plugins[0].parameters.path",
            "--model-server-metrics-path",
        ),
        (
            HEAD + "plugins:\n- type: latency-scorer\n  parameters:\n    latencyPredictionInfoProducerName: nobody\n",
            6,
            "$.plugins[0].parameters.latencyPredictionInfoProducerName",
            "'nobody' names no declared predicted-latency-producer",
        ),
        (
            HEAD + "plugins:\n- type: prefix-cache-scorer\n  parameters: {hashBlockSize: 32}\n"
            "- type: approx-prefix-cache-producer\n",
            3,
            "$.plugins",
            "different sizes",
        ),
        (QUEUE + profile("pluginRef: x"), 8, "$.schedulingProfiles[0].plugins[0].pluginRef", "'x' names no declared"),
        (
            QUEUE + profile("{pluginRef: queue-scorer, weight: -1}"),
            8,
            "$.schedulingProfiles[0].plugins[0].weight",
            "0 to",
        ),
        (
            QUEUE + profile("{pluginRef: queue-scorer, weight: .nan}"),
            8,
            "$.schedulingProfiles[0].plugins[0].weight",
            "fin",
        ),
        (
            QUEUE + profile("{pluginRef: queue-scorer, weight: x}"),
            8,
            "$.schedulingProfiles[0].plugins[0].weight",
            "float",
        ),
        (QUEUE + "schedulingProfiles:\n- name: a\n", 6, "$.schedulingProfiles[0]", "'a' is empty"),
        (QUEUE + profile(*["pluginRef: queue-scorer"] * 2), 6, "$.schedulingProfiles[0]", "refers to a plugin twice"),
        (QUEUE + "schedulingProfiles:\n- name: ''\n", 6, "$.schedulingProfiles[0].name", "needs a name"),
        (HEAD + "plugins: []\n", None, "$.schedulingProfiles[0]", "'default' is empty"),
        (
            QUEUE + profile("pluginRef: queue-scorer") + "- name: a\n",
            9,
            "$.schedulingProfiles[1].name",
            "two profiles are named 'a'",
        ),
        (
            QUEUE + profile("pluginRef: queue-scorer") + "- name: b\n  plugins: [{pluginRef: queue-scorer}]\n",
            3,
            "$.plugins",
            "2 profiles need a profile handler",
        ),
        (
            HEAD + "plugins:\n- type: random-picker\n- type: max-score-picker\n",
            None,
            "$.schedulingProfiles[0]",
            "two pickers",
        ),
        (
            QUEUE + "- type: single-profile-handler\n- type: slo-aware-profile-handler\n",
            6,
            "$.plugins[2]",
            "more than one profile handler",
        ),
        (QUEUE + "- type: slo-aware-profile-handler\n", None, "$.schedulingProfiles", "profile named slo"),
    ],
)
def test_errors_name_line_and_path(text: str, line: int | None, path: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(text)
    assert problem in caught.value.problem
    assert caught.value.path == path
    if line is not None:
        assert caught.value.line == line
        assert str(caught.value).startswith(f"line {line}: {path}: ")


PRESET = (
    LLM_D
    + """\
plugins:
- type: metrics-data-source
  parameters: {scheme: http, path: /metrics, insecureSkipVerify: true}
- type: core-metrics-extractor
- type: predicted-latency-producer
  parameters: {sloBufferFactor: 0.9}
- name: strict
  type: prefix-cache-affinity-filter
  parameters: {affinityThreshold: 0.99, ttftSource: latencyPredictor, maxTTFTPenaltyMs: 5000}
- name: loose
  type: prefix-cache-affinity-filter
  parameters: {affinityThreshold: 0.80, ttftSource: latencyPredictor, maxTTFTPenaltyMs: 5000}
- type: latency-scorer
- type: weighted-random-picker
- type: slo-headroom-tier-filter
- type: latency-slo-admitter
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: predicted-latency-producer
  - pluginRef: strict
  - pluginRef: slo-headroom-tier-filter
  - pluginRef: loose
  - pluginRef: latency-scorer
  - pluginRef: weighted-random-picker
"""
)
LINES = PRESET.splitlines(keepends=True) + DEFAULT_CONFIG.splitlines(keepends=True)


@settings(max_examples=100)
@given(data=st.data(), text=st.sampled_from([DEFAULT_CONFIG, PRESET]))
def test_a_damaged_configuration_is_read_or_refused(data: st.DataObject, text: str) -> None:
    lines = text.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        piece = st.sampled_from(LINES) | st.sampled_from(["", " ", "- ", "x: 1\n", "[]", "{}", ": ", "~\n", "'"])
        lines[at : at + data.draw(st.integers(0, 2))] = [data.draw(piece)]
    with contextlib.suppress(ConfigError):
        load("".join(lines))


@pytest.mark.parametrize("type_name", sorted(REFUSED))
def test_an_unsupported_plugin_type_is_refused_with_the_reason(type_name: str) -> None:
    assert type_name not in plugin_types()
    with pytest.raises(DocumentError) as caught:
        load(HEAD + f"plugins:\n- type: {type_name}\n")
    assert caught.value.problem == f"{type_name}: {REFUSED[type_name]}"
    assert set(
        re.findall(r"[a-z]+(?:-[a-z]+){1,4}(?:filter|scorer|producer|parser|detector|handler)", REFUSED[type_name])
    ) <= set(plugin_types())


def test_the_predicted_latency_preset_predicts_for_every_request() -> None:
    scheduler = load(PRESET)
    assert scheduler.wants_predictions(Request("1", "m"))
    (weighted,) = scheduler.profiles["default"].scorers
    assert isinstance(weighted.scorer, LatencyScorer)
    assert weighted.scorer.buffer_factor == 0.9
    assert isinstance(scheduler.admitters[1], LatencySloAdmitter)
    assert scheduler.prefix == PrefixParameters(256, 2048, 31_250)


def test_the_preset_decides_with_predictions_and_without() -> None:
    scheduler, rng = load(PRESET), np.random.default_rng(1)
    asked = Request("1", "m", slo_ttft_ms=500, slo_tpot_ms=50)
    predicted = build_snapshot(3, predicted=[(900, 20), (300, 20), (300, 46)])
    decisions = [scheduler.schedule(asked, predicted, rng) for _ in range(50)]
    assert sum(isinstance(d, Decision) and d.chosen == 1 for d in decisions) > 45
    explained = decisions[0]
    assert isinstance(explained, Decision)
    assert explained.headroom is not None
    assert explained.headroom.ttft_ms.tolist() == [-400, 200, 200]
    assert explained.headroom.tpot_ms.tolist() == pytest.approx([25, 25, -1])
    blind = scheduler.schedule(asked, build_snapshot(3), rng)
    assert isinstance(blind, Decision)
    assert blind.headroom is None


@pytest.mark.parametrize("type_name", ["latency-scorer", "slo-headroom-tier-filter", "latency-slo-admitter"])
def test_every_plugin_that_reads_predictions_requests_them(type_name: str) -> None:
    assert load(QUEUE + f"- type: {type_name}\n").wants_predictions(Request("1", "m"))


def test_the_producer_requests_predictions_unless_it_is_switched_off() -> None:
    text = QUEUE + "- type: latency-scorer\n- type: predicted-latency-producer\n"
    assert load(text.replace("- type: latency-scorer\n", "")).wants_predictions(Request("1", "m"))
    assert not load(text + "  parameters: {predictInProduce: false}\n").wants_predictions(Request("1", "m"))


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("featureGates: [flowControl]\n", "$.featureGates[0]", "flow control is not implemented"),
        ("featureGates: ['flowControl=TRUE']\n", "$.featureGates[0]", "flow control is not implemented"),
        ("featureGates: ['flowControl=maybe']\n", "$.featureGates[0]", "name=true or name=false"),
        ("featureGates: [warp]\n", "$.featureGates[0]", "unknown feature gate 'warp'"),
        ("dataLayer: {discovery: {pluginRef: x}}\n", "$.dataLayer.discovery", "--endpoints-file"),
        ("dataLayer: {peerDiscovery: {pluginRef: x}}\n", "$.dataLayer.peerDiscovery", "don't share state"),
        ("dataLayer: {crossReplicaSyncInterval: 1s}\n", "$.dataLayer.crossReplicaSyncInterval", "don't share state"),
        ("dataLayer: {sources: [{pluginRef: x}]}\n", "$.dataLayer.sources[0].pluginRef", "names no declared plugin"),
        ("dataLayer: {sources: [{pluginRef: dcgm-data-source}]}\n", "$.dataLayer.sources[0].pluginRef", "dcgm-data"),
        ("flowControl: {maxByte: 1}\n", "$.flowControl.maxByte", "unknown field"),
        (
            "saturationDetector: {pluginRef: utilization-detector, queueDepthThreshold: 1}\n",
            "$.saturationDetector",
            "not both",
        ),
        ("saturationDetector: {pluginRef: queue-scorer}\n", "$.saturationDetector.pluginRef", "expected utilization"),
        ("saturationDetector: {kvCacheUtilThreshold: 2}\n", "$.saturationDetector", "kvCacheUtilThreshold"),
        (
            "saturationDetector: {pluginRef: concurrency-detector}\n",
            "$.saturationDetector.pluginRef",
            "use utilization",
        ),
        (
            "requestHandler: {parsers: [{pluginRef: anthropic-parser}]}\n",
            "$.requestHandler.parsers[0].pluginRef",
            "OpenAI",
        ),
        ("parser: {pluginRef: vllmhttp-parser}\n", "$.parser.pluginRef", "OpenAI"),
        ("parser: {pluginRef: queue-scorer}\n", "$.parser.pluginRef", "expected openai-parser or passthrough-parser"),
    ],
)
def test_a_section_that_asks_for_an_unsupported_feature_is_refused(text: str, path: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(LLM_D + "plugins:\n- type: queue-scorer\n" + text)
    assert problem in caught.value.problem
    assert (caught.value.path, caught.value.line) == (path, 5)


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("featureGates: [haPopulateNonLeaderDatastore]\n", "$.featureGates[0]: ignored"),
        ("featureGates: ['flowControl=false']\n", None),
        ("dataLayer: {injectDefaults: false}\n", "$.dataLayer.injectDefaults: ignored"),
        ("dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: []}]}\n", None),
        ("flowControl: {maxBytes: 1Gi, priorityBands: []}\n", "$.flowControl: ignored except saturationDetector"),
        ("requestHandler: {parsers: [{pluginRef: openai-parser}, {pluginRef: passthrough-parser}]}\n", None),
        ("- {type: active-request-scorer, parameters: {requestTimeout: 2m}}\n", "requestTimeout has no effect"),
        (
            "- type: decode-filter\n" + profile("{pluginRef: decode-filter, weight: 2}"),
            "$.schedulingProfiles[0].plugins[0].weight: ignored: decode-filter is no scorer",
        ),
        (
            "- type: single-profile-handler\n" + profile("pluginRef: single-profile-handler"),
            "$.schedulingProfiles[0].plugins[0]: ignored: single-profile-handler is a profile handler",
        ),
    ],
)
def test_an_ignored_setting_gives_a_notice(text: str, notice: str | None) -> None:
    notices = load(LLM_D + "plugins:\n- type: queue-scorer\n" + text).notices
    assert len(notices) == (notice is not None)
    assert notice is None or notice in notices[0]


@pytest.mark.parametrize(
    "text",
    [
        "- {type: utilization-detector, parameters: {queueDepthThreshold: 9}}\n",
        "- {type: utilization-detector, name: mine, parameters: {queueDepthThreshold: 9}}\n"
        "- {type: utilization-detector}\nflowControl: {saturationDetector: {pluginRef: mine}}\n",
        "- {type: utilization-detector, name: mine, parameters: {queueDepthThreshold: 9}}\n"
        "saturationDetector: {pluginRef: mine}\n",
        "saturationDetector: {queueDepthThreshold: 9}\n",
        "- {type: utilization-detector, name: mine, parameters: {queueDepthThreshold: 9}}\nsaturationDetector: {}\n",
        "- {type: utilization-detector, name: other}\n"
        "- {type: utilization-detector, parameters: {queueDepthThreshold: 9}}\n",
    ],
)
def test_the_saturation_detector_is_the_one_that_is_declared_named_or_described(text: str) -> None:
    assert detector(load(QUEUE + text, SD_KV_CACHE_UTIL_THRESHOLD="0.8")).queue_depth_threshold == 9


def test_the_default_detector_reads_the_environment() -> None:
    assert detector(load(QUEUE, SD_QUEUE_DEPTH_THRESHOLD="7")).queue_depth_threshold == 7
    described = load(QUEUE + "saturationDetector: {kvCacheUtilThreshold: 0.5}\n", SD_QUEUE_DEPTH_THRESHOLD="7")
    assert detector(described).queue_depth_threshold == 7
    assert detector(described).kv_cache_util_threshold == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (QUEUE, PrefixParameters(64, 256, 31_250)),
        (LLM_D + "plugins:\n- type: queue-scorer\n", PrefixParameters(256, 2048, 31_250)),
        (
            QUEUE + "- {type: prefix-cache-scorer, parameters: {hashBlockSize: 32, maxPrefixBlocksToMatch: 9}}\n",
            PrefixParameters(32, 9, 31_250),
        ),
        (
            QUEUE + "- type: approx-prefix-cache-producer\n"
            "  parameters: {blockSizeTokens: 100, maxPrefixTokensToMatch: 1000, lruCapacityPerServer: 5}\n",
            PrefixParameters(400, 10, 5),
        ),
        (
            QUEUE + "- type: approx-prefix-cache-producer\n"
            "  parameters: {blockSize: 50, maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 7}\n",
            PrefixParameters(50, 7, 31_250),
        ),
    ],
)
def test_the_prefix_index_has_the_configured_size(text: str, expected: PrefixParameters) -> None:
    assert load(text).prefix == expected


@pytest.mark.parametrize(
    ("plugin", "tokens_per_block"),
    [
        ("{type: approx-prefix-cache-producer, parameters: {lruCapacityPerServer: 5}}", 64),
        ("{type: approx-prefix-cache-producer, parameters: {autoTune: false}}", 0),
        ("{type: prefix-cache-scorer, parameters: {hashBlockSize: 128}}", 32),
        ("{type: prefix-cache-scorer, parameters: {lruCapacityPerServer: 5}}", 0),
    ],
)
def test_the_prefix_index_follows_the_caches_unless_told_not_to(plugin: str, tokens_per_block: int) -> None:
    assert load(QUEUE + f"- {plugin}\n").prefix.tokens_per_block == tokens_per_block


def test_without_predictions_the_default_profile_decides() -> None:
    scheduler = load(DEFAULT_CONFIG)
    asked = Request("1", "m", prediction_based=True)
    for predicted in (None, [(np.nan, np.nan)] * 2):
        candidates = build_snapshot(2, waiting=[5, 0], predicted=predicted)
        decision = scheduler.schedule(asked, candidates, np.random.default_rng(1))
        assert isinstance(decision, Decision)
        assert (decision.wanted_profile, decision.profile, decision.chosen) == ("slo", "default", 1)


def test_a_header_chooses_the_profile() -> None:
    text = QUEUE + "- type: header-profile-handler\n" + profile("pluginRef: queue-scorer")
    text += "- name: decode\n  plugins: [{pluginRef: queue-scorer}]\n"
    scheduler, candidates, rng = load(text), build_snapshot(1), np.random.default_rng(1)
    for headers, expected in (({"epp-profile": " a "}, "a"), ({}, "decode")):
        decision = scheduler.schedule(Request("1", "m", headers=headers), candidates, rng)
        assert isinstance(decision, Decision)
        assert decision.profile == expected
    unknown = Request("1", "m", headers={"epp-profile": "x"})
    assert not scheduler.wants_predictions(unknown)
    assert scheduler.schedule(unknown, candidates, rng) == Refusal("no-endpoint", "no scheduling profile is named 'x'")
    with pytest.raises(DocumentError, match="defaultProfile"):
        load(text.replace("decode", "other"))
