from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.calibration_file import format_calibration, parse_calibration
from simulator.exceptions import CalibrationError
from simulator.hardware import MAX_BYTES, hardware, shipped_names

OWN = """\
# gpu: one of ours
# model: one of ours
# source: our own measurements
# licence: none
# num_blocks: 1000
# block_tokens: 16
# max_num_seqs: 8
# max_num_batched_tokens: 100
# max_model_len: 4096
# host_ms: 0
# kernel_factor: 1
# note: measured on a quiet machine
part,tokens,context,ms
dense,1,0,10
dense,101,0,20
prefill_attention,1,0,0
prefill_attention,1,1000,1
prefill_attention,100,0,1
prefill_attention,100,2000,5
decode_attention,1,100,1
decode_attention,1,1100,2
decode_attention,8,100,2
decode_attention,8,600,6
"""


def own(tmp_path: Path, text: str) -> str:
    file = tmp_path / "own.csv"
    file.write_text(text)
    return str(file)


def test_an_operators_own_calibration_is_read(tmp_path: Path) -> None:
    imitated = hardware(own(tmp_path, OWN))
    cost = imitated.cost
    assert (imitated.name, imitated.num_blocks, imitated.max_model_len) == ("own", 1000, 4096)
    assert cost.dense_ms(51) == pytest.approx(15)
    assert cost.dense_ms(201) == pytest.approx(30)
    assert cost.prefill_attention_ms(100, 1000) == pytest.approx(3)
    assert cost.decode_attention_ms(1, 600) == pytest.approx(1.5)
    assert cost.decode_attention_ms(1, 700) == pytest.approx(1.6)


def test_missing_contexts_are_interpolated_within_their_row(tmp_path: Path) -> None:
    cost = hardware(own(tmp_path, OWN)).cost
    assert cost.decode_attention_ms(8, 8 * 1_100) == pytest.approx(10)
    assert cost.decode_attention_ms(8, 8 * 350) == pytest.approx(4)
    assert cost.decode_attention_ms(8, 8 * 50) == pytest.approx(2)
    # Halfway between the batches 1 and 8, at a context that only one of the two rows has.
    assert cost.decode_attention_ms(4, 4 * 600) == pytest.approx(1.5 + 3 / 7 * 4.5)


def test_times_that_fall_are_made_level(tmp_path: Path) -> None:
    cost = hardware(own(tmp_path, OWN.replace("dense,101,0,20", "dense,101,0,20\ndense,50,0,24"))).cost
    assert cost.dense_ms(50) == cost.dense_ms(101) == 22


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_calibrations_are_unchanged_by_a_round_trip(name: str) -> None:
    file = Path(__file__).parents[2] / "simulator" / "calibration" / f"{name}.csv"
    text = file.read_text()
    assert format_calibration(parse_calibration(text, name)) == text
    assert len(text) < 50_000


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("# model: one of ours\n", "", "no line '# model"),
        ("# host_ms: 0\n", "# host_ms: 0\n# host_ms: 1\n", "line 11: host_ms is given twice"),
        ("# licence: none\n", "# license: none\n", "line 4: license is unknown.*licence"),
        ("# licence: none\n", "# licence\n", "line 4: expected '# key: value'"),
        ("# num_blocks: 1000", "# num_blocks: 0", "num_blocks: expected a whole number from 1"),
        ("# max_num_seqs: 8", "# max_num_seqs: 8000000", "max_num_seqs: expected .* to 4096, got '8000000'"),
        ("# kernel_factor: 1", "# kernel_factor: 1\n# shared_discount: 1.1", "shared_discount: .* from 0 to 1, got"),
        ("# kernel_factor: 1", "# kernel_factor: nan", "kernel_factor: expected a number from 0.01"),
        ("part,tokens", "parts,tokens", "line 13: expected the columns part,tokens,context,ms"),
        ("dense,1,0,10", "dense,1,0", "line 14: expected 4 fields, got 3"),
        ("dense,1,0,10", "sparse,1,0,10", "line 14: part 'sparse': expected one of dense"),
        ("dense,1,0,10", "dense,one,0,10", "line 14: tokens: expected a whole number from 1 to .*, got 'one'"),
        ("dense,1,0,10", "dense,1,5,10", "line 14: context: expected 0"),
        ("dense,1,0,10", "dense,1,0,-10", "line 14: ms: expected a number from 0"),
        ("dense,1,0,10", 'dense,1,0,"10', "line 23: unexpected end"),
        ("dense,101,0,20", "dense,1,0,20", "line 15: dense with 1 tokens and context 0 is given twice"),
        ("dense,101,0,20\n", "", "dense: expected rows of at least two numbers of tokens"),
        ("decode_attention,8,600,6\n", "", "decode_attention: expected at least two contexts with tokens 8"),
    ],
)
def test_an_error_names_the_wrong_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in OWN
    with pytest.raises(CalibrationError, match=problem):
        hardware(own(tmp_path, OWN.replace(old, new, 1)))


@given(st.text(st.sampled_from('#: ,"\n\r0123456789.-ednsxpart\x00é'), max_size=200), st.integers(0, len(OWN)))
def test_any_text_is_read_or_refused(noise: str, at: int) -> None:
    with suppress(CalibrationError):
        parse_calibration(OWN[:at] + noise + OWN[at:], "file")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"can't read .*missing\.csv"):
        hardware(str(tmp_path / "missing.csv"))
    with pytest.raises(CalibrationError, match="larger than"):
        hardware(own(tmp_path, "#" * (MAX_BYTES + 1)))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(CalibrationError, match=r"can't read .*binary\.csv"):
        hardware(str(tmp_path / "binary.csv"))


def test_many_rows_are_read_and_too_many_contexts_are_refused(tmp_path: Path) -> None:
    dense = "".join(f"dense,{tokens},0,{tokens}\n" for tokens in range(102, 40_000))
    assert hardware(own(tmp_path, OWN + dense)).cost.dense_ms(30_000) == 30_000
    many = "".join(f"decode_attention,2,{context},3\n" for context in range(257))
    with pytest.raises(CalibrationError, match="decode_attention: expected at most 256 different contexts"):
        hardware(own(tmp_path, OWN + many))


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert hardware(own(tmp_path, "\ufeff" + OWN)).num_blocks == 1000


def test_the_hosts_time_and_the_admission_of_prompts_are_optional(tmp_path: Path) -> None:
    optional = {
        "request_ms": 2.5,
        "prompt_token_ms": 0.01,
        "request_step_ms": 1.5,
        "mixed_step_ms": 0.5,
        "shared_discount": 0.25,
    }
    lines = [f"# {name}: {value}\n" for name, value in (optional | {"reserve_prompt": 1}).items()]
    text = OWN.replace("# note", "".join(lines) + "# note")
    read = hardware(own(tmp_path, text))
    assert (read.delay_ms(100), read.request_step_ms, read.mixed_step_ms, read.shared_discount) == (3.5, 1.5, 0.5, 0.25)
    assert read.reserve_prompt
    plain = hardware(own(tmp_path, OWN))
    assert (plain.delay_ms(100), plain.reserve_prompt) == (0.0, False)
    written = format_calibration(parse_calibration(text, "own"))
    assert format_calibration(parse_calibration(written, "written")) == written
    assert "# request_ms: 2.5\n" in written
