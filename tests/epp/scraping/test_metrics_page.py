"""Test the search for single series in a metrics page."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from epp.exceptions import ConfigError
from epp.scheduling.snapshot import Adapters
from epp.scraping.metrics_page import Gauge, parse_adapters

PAGE = b"""\
# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a"} 3.0
vllm:num_requests_waiting{engine="1",model_name="b, {c}"} 4.0
vllm:num_requests_waiting_by_reason{reason="x"} 9.0
plain 2.5e-1
timed{a="1"} 7 1700000000000
timed{a="2"} 8 1700000000002
timed{a="3"} 9 1700000000001
broken x
empty
"""


def parsed(spec: str) -> Gauge:
    gauge = Gauge.parse(spec)
    assert gauge is not None
    return gauge


def read(spec: str, page: bytes, near: int = 0) -> float | None:
    gauge = parsed(spec)
    at = gauge.find(page, near)
    return gauge.read(page, at) if at >= 0 else None


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("vllm:num_requests_waiting", 3.0),
        ("vllm:num_requests_waiting{engine=1}", 4.0),
        ('vllm:num_requests_waiting{engine="1"}', 4.0),
        ("vllm:num_requests_waiting{engine=0,model_name=a}", 3.0),
        ("vllm:num_requests_waiting{ engine = 0 , model_name = a }", 3.0),
        ("vllm:num_requests_waiting{engine=2}", None),
        ("vllm:num_requests", None),
        ("plain", 0.25),
        ("timed", 8.0),
        ("timed{a=1}", 7.0),
        ("absent", None),
        ("empty", None),
    ],
)
def test_the_wanted_series_is_read(spec: str, expected: float | None) -> None:
    assert read(spec, PAGE) == expected


def test_a_value_that_is_no_number_reads_as_nan() -> None:
    value = read("broken", PAGE)
    assert value is not None
    assert math.isnan(value)


def test_an_empty_name_switches_a_metric_off() -> None:
    assert Gauge.parse("") is None


@pytest.mark.parametrize("spec", ["a b", 'a{b="c"', "9a", "a{{}}", "a{b}", "a{b=c,=d}", 'a{b="c}', "{a=b}"])
def test_an_invalid_metric_name_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Gauge.parse(spec)


NAMES = ["load", "load_total", "my:load", "loads", "l"]
series = st.tuples(
    st.dictionaries(st.sampled_from(["a", "b"]), st.text('x"\\\n{}, =#', max_size=4), max_size=2),
    st.floats(allow_nan=False),
    st.none() | st.integers(0, 5),
)
families = st.lists(st.tuples(st.sampled_from(NAMES), st.lists(series, max_size=3)), unique_by=lambda family: family[0])


def escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def written(families_: list[tuple[str, list[tuple[dict[str, str], float, int | None]]]], comments: bool) -> str:
    lines = []
    for name, samples in families_:
        if comments:
            lines += [f"# HELP {name} The meaning of {name}.", f"# TYPE {name} gauge"]
        for labels, value, timestamp in samples:
            inside = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{inside}}} {value!r}" + ("" if timestamp is None else f" {timestamp}"))
    return "\n".join(lines) + "\n"


@given(families, st.booleans(), st.sampled_from(NAMES), st.integers(0, 200), st.none() | st.text("x,{", max_size=2))
def test_finding_one_series_agrees_with_parsing_the_whole_page(
    families_: list[tuple[str, list[tuple[dict[str, str], float, int | None]]]],
    comments: bool,
    name: str,
    near: int,
    label: str | None,
) -> None:
    text = written(families_, comments)
    gauge = Gauge(name.encode(), {} if label is None else {b"a": label.encode()})
    at = gauge.find(text.encode(), near)
    found = gauge.read(text.encode(), at) if at >= 0 else None
    samples = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and (label is None or sample.labels.get("a") == label)
    ]
    latest = max(samples, key=lambda sample: float(sample.timestamp or 0), default=None)
    assert found == (None if latest is None else latest.value)


@given(st.integers(0, 6000), st.integers(0, 6000))
def test_a_series_is_found_from_any_earlier_position(before: int, near: int) -> None:
    """The earlier position may also lie outside the part that is searched first."""
    head = b"x 1\n" * (before // 4)
    page = head + b'load{a="1"} 1\nload{a="2"} 2\n' + b"y 1\n" * 1000
    gauge = parsed("load")
    assert gauge.find(page, near) == len(head)
    assert gauge.read(page, gauge.find(page, near)) == 1.0


def test_the_adapters_come_from_the_newest_lora_series() -> None:
    page = (
        b'lora{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.7e9\n'
        b'lora{max_lora="4",running_lora_adapters="a, b",waiting_lora_adapters="c"} 1.8e9\n'
        b'lora{max_lora="4",running_lora_adapters="",waiting_lora_adapters="older"} 1.6e9\n'
    )
    gauge = parsed("lora")
    labels = gauge.newest_labels(page, gauge.find(page))
    assert labels is not None
    assert parse_adapters(labels) == Adapters(frozenset({"a", "b"}), frozenset({"c"}), 4)


@pytest.mark.parametrize("labels", [b"", b'max_lora="-1"', b'max_lora="many"', b'max_lora="99999999999999"'])
def test_undecodable_adapter_labels_mean_no_adapters(labels: bytes) -> None:
    assert parse_adapters(labels) == Adapters()


def test_a_page_without_end_is_read_in_part() -> None:
    """A line of 300,000 adapters took 558 MB and 1.4 s; each line of a series took as long as the first."""
    names = b",".join(b"adapter-%d" % index for index in range(5_000))
    few = parse_adapters(b'running_lora_adapters="' + names + b'",max_lora="4"')
    assert (len(few.active), few.capacity) == (1000, 4)
    gauge = parsed("lora")
    line = b'lora{running_lora_adapters="' + b"a," * 300_000 + b'"} 2\n'
    assert gauge.newest_labels(line, 0) is None
    assert gauge.newest_labels(line + b'lora{running_lora_adapters="b"} 1\n', 0) == b'{running_lora_adapters="b"'
    lines = b"".join(b'load{engine="%d"} %d %d\n' % (index, index, index) for index in range(100_000))
    assert parsed("load").read(lines, 0) == 999
