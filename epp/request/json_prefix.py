"""Find the structure of a JSON document slice by slice, and close a leading part of it to a document of its own.

A scan costs the same for any content, because numpy looks at all bytes of a slice at once and makes no objects of the
values. A parser's cost depends on the number of values: `[],[],[]` costs a hundred times as much as text.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_IS_MARK = np.zeros(256, dtype=bool)
_IS_MARK[list(b"[]{},:")] = True
_BEGINS_ELEMENT = np.zeros(256, dtype=bool)
_BEGINS_ELEMENT[list(b"[{,")] = True
_CLOSING = {"[": "]", "{": "}"}
# Bytes of a document's beginning that are looked at first, for each element that it may have.
_PEEK_FACTOR = 8
# Quotes that are looked at one by one, and backslashes before a quote.
_MOST_QUOTES = 1024
_MOST_BACKSLASHES = 64
# Most bytes of an escape sequence: two of the form \uXXXX for one character.
_ESCAPE_BYTES = 12


def has_few_elements(document: bytes, most: int) -> bool:
    """Return whether a JSON document surely has at most so many elements. This is quick, and may say no wrongly."""
    if len(document) <= 2 * most:
        # An element has a comma or a bracket, and a byte at least.
        return True
    peek_bytes = _PEEK_FACTOR * most
    if len(document) > peek_bytes and _most_elements(document[:peek_bytes]) > most:
        # Where there are many, the beginning usually shows it.
        return False
    return _most_elements(document) <= most


def _most_elements(document: bytes) -> int:
    """Return an upper bound of the elements, which is near if there are few strings."""
    count = _count_between_strings(document)
    return _count(document) if count is None else count


def _count(document: bytes) -> int:
    """Return an upper bound of the elements, which also counts commas and brackets in strings."""
    return document.count(b",") + document.count(b"[") + document.count(b"{")


def _count_between_strings(document: bytes) -> int | None:
    """Count the elements between strings, or return None if there are many strings. Long strings are skipped."""
    at = found = 0
    is_in_string = False
    for _ in range(_MOST_QUOTES):
        quote = document.find(b'"', at)
        if not is_in_string:
            found += _count(document[at:quote] if quote >= 0 else document[at:])
        if quote < 0:
            return found
        if is_in_string and document[quote - 1] == _BACKSLASH:
            before = document[max(quote - _MOST_BACKSLASHES, at) : quote]
            backslashes = len(before) - len(before.rstrip(b"\\"))
            if backslashes == _MOST_BACKSLASHES:
                return None
            is_in_string = backslashes % 2 == 1
        else:
            is_in_string = not is_in_string
        at = quote + 1
    return None


class JsonScan:
    """Scans the leading part of a JSON document, up to `most_elements` commas and opening brackets outside strings.

    `is_full` says that the document has more of them. `scanned` is the count of scanned bytes. `cuts_string` says that
    the closed document ends in a part of a string.
    """

    def __init__(self, document: bytes, most_elements: int) -> None:
        self._document: Bytes = np.frombuffer(document, dtype=np.uint8)
        self._bytes = document
        self._most = most_elements
        self.elements = 0
        self._places: list[NDArray[np.intp]] = []
        self._in_string = False
        self._string_at = 0
        self._escapes_next = False
        self.scanned = 0
        self.is_full = False
        self.cuts_string = False

    @property
    def is_done(self) -> bool:
        return self.is_full or self.scanned >= len(self._bytes)

    def scan(self, count: int) -> None:
        """Scan the next `count` bytes."""
        piece = self._document[self.scanned : self.scanned + count]
        quotes = piece == _QUOTE
        self._drop_escaped(piece, quotes)
        in_string = np.bitwise_xor.accumulate(quotes) ^ self._in_string
        # The closing quote counts as outside its string. Quotes are no marks.
        places = np.flatnonzero(_IS_MARK[piece] & ~in_string)
        begun = np.cumsum(_BEGINS_ELEMENT[piece[places]])
        found = int(begun[-1]) if len(begun) else 0
        if self.elements + found > self._most:
            self.is_full = True
            places = places[: int(np.searchsorted(begun, self._most - self.elements, side="right"))]
        self.elements += found
        self._places.append(places + self.scanned)
        if quotes.any():
            self._string_at = self.scanned + len(quotes) - int(np.argmax(quotes[::-1]))
            self._in_string = bool(in_string[-1])
        self.scanned += len(piece)

    def closed(self) -> bytes:
        """Return the scanned part as a document. A string at its end is cut; other unfinished values are left out."""
        places = np.concatenate(self._places) if self._places else np.empty(0, dtype=np.intp)
        marks = self._document[places].tobytes().decode()
        brackets = _open_brackets(marks)
        if self._in_string and not self.is_full and _expects_value(marks, brackets):
            self.cuts_string = True
            return self._bytes[: self._end_of_string()] + b'"' + _closing(brackets)
        last = marks.rfind(",")
        if last < 0:
            return b"{}"
        return self._bytes[: int(places[last])] + _closing(_open_brackets(marks[:last]))

    def _drop_escaped(self, piece: Bytes, quotes: NDArray[np.bool_]) -> None:
        """Clear the quotes that a backslash escapes. In a run of backslashes, every second one is escaped itself."""
        runs = np.flatnonzero(piece == _BACKSLASH)
        if self._escapes_next and len(piece):
            quotes[0] = False
            if len(runs) and runs[0] == 0:
                runs = runs[1:]
        self._escapes_next = False
        if not len(runs):
            return
        begins = np.empty(len(runs), dtype=bool)
        begins[0] = True
        begins[1:] = np.diff(runs) != 1
        first = runs[begins][np.cumsum(begins) - 1]
        escaped = runs[(runs - first) % 2 == 0] + 1
        if escaped[-1] == len(piece):
            self._escapes_next = True
            escaped = escaped[:-1]
        quotes[escaped] = False

    def _end_of_string(self) -> int:
        """Return where to cut the string at the end, so that no character and no escape sequence is cut in two."""
        end = self.scanned
        for back in range(1, 5):
            byte = self._bytes[end - back]
            if byte < 0x80:
                break
            if byte >= 0xC0:
                end -= back
                break
        escape = self._bytes.find(b"\\", max(end - _ESCAPE_BYTES, self._string_at), end)
        if escape < 0:
            return end
        before = self._bytes[self._string_at : escape]
        return escape - (len(before) - len(before.rstrip(b"\\"))) % 2


def _open_brackets(marks: str) -> str:
    """Return the brackets that are open after these marks; of a malformed document, any."""
    brackets: list[str] = []
    for mark in marks:
        if mark in "[{":
            brackets.append(mark)
        elif mark in "]}" and brackets:
            brackets.pop()
    return "".join(brackets)


def _closing(brackets: str) -> bytes:
    return "".join(_CLOSING[bracket] for bracket in reversed(brackets)).encode()


def _expects_value(marks: str, brackets: str) -> bool:
    """Return whether a string after these marks is a value, not a key."""
    return marks.endswith((":", "[")) or (marks.endswith(",") and brackets.endswith("["))
