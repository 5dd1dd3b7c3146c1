import pytest

from epp.request.text_kinds import BYTES, KINDS, Floats, count_kinds


def counted(text: str, text_bytes: int | None = None) -> Floats:
    return count_kinds(text, len(text.encode()) if text_bytes is None else text_bytes)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Hello world", {"letters": 10, "words": 2, "white space": 1, "runs of white space": 1}),
        ("getHTTPName", {"letters": 11, "words": 2}),
        ("12 345", {"digits": 5, "numbers": 2, "white space": 1, "runs of white space": 1}),
        ("a\n    b", {"letters": 2, "words": 2, "white space": 5, "runs of white space": 1, "newlines": 1}),
        ("(){};.", {"marks": 6, "runs of marks": 1}),
        ("é", {"accented Latin letters": 1}),
        ("да", {"letters of two bytes": 2}),
        ("你好", {"CJK characters": 2}),
        ("สวัส", {"other characters of three bytes": 4}),
        ("🙂", {"characters of four bytes": 1}),
        ("\ud83d", {"other characters of three bytes": 1}),
        ("", {}),
    ],
)
def test_a_text_is_counted_by_kind(text: str, kinds: dict[str, int]) -> None:
    found = dict(zip(KINDS, count_kinds(text, len(text.encode("utf-8", "surrogatepass"))), strict=True))
    assert {name: count for name, count in found.items() if count} == kinds | {"texts": 1}


def test_messages_are_counted() -> None:
    text = "<|im_start|>user\nhi<|im_end|>\n" * 3
    assert counted(text)[KINDS.index("messages")] == 3


@pytest.mark.parametrize("text", ["Wörter und 字, 12 🙂\n" * 40, "Wörter und 字, 12 🙂\n" * 40_000, "字" * 100_000])
def test_every_byte_is_of_one_kind(text: str) -> None:
    assert counted(text) @ BYTES == pytest.approx(len(text.encode()))


def test_a_long_text_is_taken_for_its_parts() -> None:
    half = "word " * 10_000
    found = counted(half + "字" * 50_000)
    assert found[KINDS.index("CJK characters")] == pytest.approx(50_000, rel=0.15)
    assert found[KINDS.index("words")] == pytest.approx(10_000, rel=0.15)


def test_the_unread_rest_of_a_text_is_like_its_beginning() -> None:
    assert counted("ab 1", 400)[KINDS.index("digits")] == 100
    assert counted("", 400)[KINDS.index("letters")] == 400
