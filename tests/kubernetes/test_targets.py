"""Test the conversion of pods to endpoints, and of flags to a target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.exceptions import ConfigError
from epp.kubernetes.objects import EXPERIMENTAL_GROUP, POOL_GROUP, Metadata, Pod, PodCondition, PodStatus
from epp.kubernetes.targets import PoolName, TargetPods, endpoints_of, parse_target

CONDITIONS = st.builds(PodCondition, st.sampled_from(["Ready", "PodScheduled"]), st.sampled_from(["True", "False"]))
PODS = st.builds(
    Pod,
    st.builds(
        Metadata,
        name=st.text("abc-", min_size=1, max_size=4),
        labels=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        annotations=st.none()
        | st.dictionaries(st.just("llm-d.ai/active-ports"), st.sampled_from(["8000", "8000, 8001", ""])),
        deletionTimestamp=st.none() | st.just("2026-01-01T00:00:00Z"),
    ),
    st.builds(PodStatus, st.sampled_from(["", "10.0.0.1", "10.0.0.2", "fd00::1"]), st.none() | st.lists(CONDITIONS)),
)


@given(st.lists(PODS), st.lists(st.integers(8000, 8002), unique=True, max_size=3))
def test_only_ready_pods_that_stay_are_endpoints(pods: list[Pod], ports: list[int]) -> None:
    serving = [
        pod
        for pod in pods
        if PodCondition("Ready", "True") in (pod.status.conditions or [])
        and pod.status.podIP
        and pod.metadata.deletionTimestamp is None
    ]
    found = endpoints_of(pods, tuple(ports))
    assert len(found) <= len(serving) * len(ports)
    if not any(pod.metadata.annotations for pod in pods):
        assert len(found) == len(serving) * len(ports)
    for endpoint in found:
        host, _, port = endpoint.address.rpartition(":")
        assert int(port) in ports
        assert host.strip("[]") in {pod.status.podIP for pod in serving}
    assert found == endpoints_of(reversed(pods), tuple(ports)) or len({pod.metadata.name for pod in pods}) < len(pods)


@given(
    st.dictionaries(
        st.from_regex(r"\A([a-z]{1,5}\.io/)?[a-z]([a-z_.-]{0,9}[a-z])?\Z"),
        st.from_regex(r"\A[a-z0-9]{0,9}\Z"),
        min_size=1,
    )
)
def test_a_selectors_text_is_parsed_into_its_labels(labels: dict[str, str]) -> None:
    text = ",".join(f"{key}={value}" for key, value in labels.items())
    target = parse_target(text, " 8000, 8001,8000 ")
    assert target == TargetPods(labels, (8000, 8001))
    assert sorted(target.selector.split(",")) == sorted(text.split(","))


@pytest.mark.parametrize(
    ("selector", "ports", "said"),
    [
        ("app", "8000", "--endpoint-selector: expected key=value, by commas, got 'app'"),
        ("app in (a b)", "8000", "--endpoint-selector: expected key=value"),
        ("app=a b", "8000", "--endpoint-selector: expected key=value"),
        ("app=vllm", "http", "--endpoint-target-ports: expected ports by commas, got 'http'"),
        ("app=vllm", "8000,0", "got '0'"),
        ("app=vllm", "65536", "got '65536'"),
        ("app=vllm", "8" * 5000, "got '88888888888888888888'"),
        ("app=vllm", "²", "got '²'"),
        ("app=vllm", "", "both are needed, or neither"),
        ("", "8000", "both are needed, or neither"),
        ("app=vllm", ",".join(str(port) for port in range(1, 66)), "65 ports are more than 64"),
    ],
)
def test_an_invalid_flag_is_named_in_the_error(selector: str, ports: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_target(selector, ports)
    assert said in str(refused.value)


def test_a_pool_needs_a_name_and_a_known_group() -> None:
    with pytest.raises(ConfigError, match="--pool-name: the name of the InferencePool is missing"):
        PoolName("", POOL_GROUP)
    with pytest.raises(ConfigError, match=r"--pool-group: expected inference\.networking\.k8s\.io or .*, got 'x'"):
        PoolName("pool", "x")
    assert str(PoolName("pool", EXPERIMENTAL_GROUP)) == f"InferencePool pool of {EXPERIMENTAL_GROUP}"
