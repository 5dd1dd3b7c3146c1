"""Count what a text consists of: words, digits, punctuation, scripts. Its length in tokens depends on these counts."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Characters of a long text that are looked at, and the pieces that they are taken in. The whole text is like them.
_SAMPLED, _PIECES = 8192, 8
# Opens each message in a conversation's text (openai.py). A chat template adds tokens to each message.
_MESSAGE = "<|im_start|>"

_LOWER, _UPPER, _DIGIT, _SPACE, _NEWLINE, _MARK, _LATIN, _TWO_BYTES, _CJK, _THREE_BYTES, _FOUR_BYTES, _REST = range(12)
_LETTERS, _WHITE = (_LOWER, _UPPER), (_SPACE, _NEWLINE)

KINDS: Final = (
    "letters",
    "words",
    "digits",
    "numbers",
    "marks",
    "runs of marks",
    "white space",
    "runs of white space",
    "newlines",
    "accented Latin letters",
    "letters of two bytes",
    "CJK characters",
    "other characters of three bytes",
    "characters of four bytes",
    "messages",
    "texts",
)
"""The things counted, in order. The last one is always 1: some templates add tokens to every prompt."""

BYTES: Final[Floats] = np.array([1, 0, 1, 0, 1, 0, 1, 0, 0, 2, 2, 3, 3, 4, 0, 0], dtype=np.float64)
"""The bytes of one of each kind, so that all bytes of a text are counted once."""


def count_kinds(text: str, text_bytes: int) -> Floats:
    """Return the counts in the order of KINDS, of a text of `text_bytes` that begins with `text` and goes on like it.

    Without a beginning, the text is taken for letters. Long texts are sampled, so that the time is bounded.
    """
    sample = text
    if len(text) > _SAMPLED:
        starts = np.linspace(0, len(text) - _SAMPLED // _PIECES, _PIECES, dtype=int).tolist()
        sample = "".join([text[start : start + _SAMPLED // _PIECES] for start in starts])
    data = sample.encode("utf-8", "surrogatepass")
    codes = np.frombuffer(b"\n" + data, dtype=np.uint8)
    classes = _CLASS_OF[codes]
    pairs = np.bincount(classes[:-1] * 16 + classes[1:], minlength=256)
    counts: Floats = pairs @ _KINDS_OF_PAIR
    counts[-2] = sample.count(_MESSAGE)
    if not data:
        counts[0] = text_bytes
    elif len(data) != text_bytes:
        counts *= text_bytes / len(data)
    counts[-1] = 1.0
    return counts


def _class_of(byte: int) -> int:
    """Return the class of a character by its first UTF-8 byte. Later bytes are _REST, which counts as nothing."""
    text = chr(byte)
    bounds = ((0xF0, _FOUR_BYTES), (0xEA, _THREE_BYTES), (0xE3, _CJK), (0xE0, _THREE_BYTES), (0xC6, _TWO_BYTES))
    if byte >= 0x80:
        return next((kind for least, kind in bounds if byte >= least), _LATIN if byte >= 0xC2 else _REST)
    if text.isalpha():
        return _LOWER if text.islower() else _UPPER
    return _DIGIT if text.isdigit() else _SPACE if text == " " else _NEWLINE if text in "\n\r\t" else _MARK


def _kinds_of_pair(before: int, now: int) -> list[bool]:
    """Return which kinds a character of class `now` adds to, after one of class `before`."""
    letter, digit, mark, white = now in _LETTERS, now == _DIGIT, now == _MARK, now in _WHITE
    return [
        letter,
        letter and (before not in _LETTERS or (before == _LOWER and now == _UPPER)),
        digit,
        digit and before != _DIGIT,
        mark,
        mark and before != _MARK,
        white,
        white and before not in _WHITE,
        now == _NEWLINE,
        now == _LATIN,
        now == _TWO_BYTES,
        now == _CJK,
        now == _THREE_BYTES,
        now == _FOUR_BYTES,
        False,
        False,
    ]


_CLASS_OF: Final = np.array([_class_of(byte) for byte in range(256)], dtype=np.uint8)
_KINDS_OF_PAIR: Final[Floats] = np.array([_kinds_of_pair(*divmod(pair, 16)) for pair in range(256)], dtype=np.float64)
