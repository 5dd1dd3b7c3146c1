import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import trace_formats
from simulator.exceptions import TraceError
from simulator.trace import MOONCAKE_CONVERSATION, load_trace
from simulator.trace_formats import parse_trace, read_text

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:50.9951690,396,109\r\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 3000, "input_length": 1024, "output_length": 7, "hash_ids": [0, 3]}\n'
)


def _line(**changed: object) -> str:
    return json.dumps({"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1], **changed}) + "\n"


def test_azures_files_are_read_as_they_are_published(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(AZURE.encode())
    first, second = load_trace(path)
    assert (first.arrival_s, first.prompt_tokens, first.output_tokens, first.hashes) == (0.0, 374, 44, ())
    assert second.arrival_s == pytest.approx(4.314579, abs=1e-6)
    assert (second.prompt_tokens, second.output_tokens) == (396, 109)


def test_azures_later_files_with_time_zones_are_read(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-12 00:00:00+00:00,10,1\n2024-05-12 00:00:00.5+00:00,9,2\n"
    assert [request.arrival_s for request in parse_trace(text, "trace")] == [0.0, 0.5]


def test_mooncakes_files_are_read_with_ids_of_whole_pieces(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(MOONCAKE)
    first, second = load_trace(path)
    assert (first.arrival_s, first.prompt_tokens, first.output_tokens, first.hashes) == (0.0, 1100, 5, (0, 1))
    assert (second.arrival_s, second.prompt_tokens, second.output_tokens, second.hashes) == (3.0, 1024, 7, (0, 3))


@pytest.mark.parametrize("text", [AZURE, MOONCAKE, "arrival_s,prompt_tokens,output_tokens\n0,1,1\n"])
def test_a_gzip_file_is_unpacked(tmp_path: Path, text: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    assert load_trace(packed) == load_trace(plain)


def test_the_shipped_sample_of_mooncake_is_read() -> None:
    trace = load_trace(MOONCAKE_CONVERSATION)
    assert len(trace) == 4000
    assert max(request.prompt_tokens for request in trace) == 123_192
    assert trace[0].hashes[0] == trace[1].hashes[0] == 0
    assert all(len(request.hashes) == request.prompt_tokens // 512 for request in trace)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,1\n", "line 1: no column GeneratedTokens"),
        (AZURE + "yesterday,1,1\r\n", "line 4: TIMESTAMP: Invalid isoformat"),
        (AZURE + "2023-11-16 18:15:51,1\r\n", "line 4: GeneratedTokens"),
        (AZURE + "2023-11-16 18:15:51,1.5,1\r\n", "line 4: ContextTokens"),
        (AZURE + "2023-11-16 18:15:51,0,1\r\n", "line 4: expected"),
        (AZURE + "2023-11-16 18:15:51+00:00,1,1\r\n", "line 4: TIMESTAMP: some lines have a time zone"),
        (AZURE + "2023-11-16 18:15:47,1,1\r\n", "line 4: arrives before"),
        (AZURE + "2022-11-16 18:15:47,1,1\r\n", "line 4: arrives before"),
        (MOONCAKE + "nonsense\n", "line 3: JSON is malformed"),
        (MOONCAKE + "[" * 100_000 + "\n", "line 3: "),
        ('{"timestamp": 0}\n', "line 1: Object missing required field `input_length`"),
        (_line(timestamp="0"), r"line 1: Expected `int`, got `str` - at `\$.timestamp`"),
        (_line() + "\n" + _line(hash_ids=[0]), "line 3: hash_ids: expected 2, one for each 512 tokens of the prompt"),
        (_line(hash_ids=[0, -1]), "line 1: hash_ids: expected numbers of at least 0, got -1"),
        (_line() + _line(hash_ids=[2, 1]), "line 2: hash_ids: 1 follows another id than in an earlier line"),
        (_line(hash_ids=[0, 0]), "line 1: hash_ids: 0 follows another id"),
        (_line(output_length=0), "line 1: expected"),
        (_line(timestamp=1) + _line(timestamp=0), "line 2: arrives before"),
        (_line(timestamp=-1), "line 1: expected"),
        ("", "line 1: no column arrival_s"),
    ],
)
def test_an_error_names_the_line_and_the_problem(text: str, expected: str) -> None:
    with pytest.raises(TraceError, match=f"trace, {expected}"):
        parse_trace(text, "trace")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for start in ("", "{", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "arrival_s,prompt_tokens,output_tokens\n"):
        with contextlib.suppress(TraceError):
            assert parse_trace(start + text, "trace")


@pytest.mark.parametrize("cut", [5, 30])
def test_an_error_names_a_damaged_gzip_file(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(AZURE.encode())[:cut])
    with pytest.raises(TraceError, match=r"can't read .*trace\.gz"):
        load_trace(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    monkeypatch.setattr(trace_formats, "MAX_TRACE_BYTES", 1 << 20)
    data = b"0" * ((1 << 20) + 1)
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(TraceError, match="more than 1 MiB"):
        read_text(path)
