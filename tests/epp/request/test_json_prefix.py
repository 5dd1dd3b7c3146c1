import json

from hypothesis import given
from hypothesis import strategies as st

from epp.request.json_prefix import JsonScan, has_few_elements

texts = st.text(max_size=12) | st.sampled_from(['a"b', "\\", '\\"', "[,]{:}", "\N{SNOWMAN}\N{GRINNING FACE}"])
documents = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.integers() | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=20,
    ),
    max_size=4,
)


def scanned(document: bytes, slice_bytes: int, most_elements: int = 1_000_000) -> JsonScan:
    scan = JsonScan(document, most_elements)
    while not scan.is_done:
        scan.scan(slice_bytes)
    return scan


@given(documents, st.booleans(), st.floats(0, 1), st.sampled_from([1, 3, 1 << 16]), st.sampled_from([4, 1_000_000]))
def test_every_leading_part_closes_to_a_document(
    document: dict[str, object], ascii_only: bool, share: float, slice_bytes: int, most_elements: int
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only).encode()
    closed = scanned(text[: round(len(text) * share)], slice_bytes, most_elements).closed()
    assert set(json.loads(closed)) <= set(document)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_slices_change_nothing(document: bytes, slice_bytes: int) -> None:
    assert scanned(document, slice_bytes).closed() == scanned(document, 1 << 16).closed()


def test_a_string_is_cut_and_brackets_are_closed() -> None:
    scan = scanned(b'{"messages": [{"role": "user", "content": "hello wor', 1 << 16)
    assert scan.closed() == b'{"messages": [{"role": "user", "content": "hello wor"}]}'
    assert scan.cuts_string


def test_a_scan_ends_at_its_most_elements() -> None:
    scan = scanned(b'{"prompt": [' + b"[]," * 1_000_000, 1 << 16, most_elements=10)
    assert scan.scanned <= 1 << 16
    # The object, the list, and four lists with a comma each.
    assert scan.closed() == b'{"prompt": [[],[],[],[]]}'


@given(documents, st.booleans())
def test_few_elements_are_never_more(document: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only).encode()
    scan = JsonScan(text, 1_000_000)
    while not scan.is_done:
        scan.scan(1 << 16)
    for most in range(5):
        if len(text) > 2 * most and has_few_elements(text, most):
            assert scan.elements <= most


def test_commas_in_strings_are_not_counted() -> None:
    text = json.dumps({"prompt": 'a, [b], {"c": 1}' * 100, "x": "," * 50_000}).encode()
    assert has_few_elements(text, 2)
    assert not has_few_elements(b"[" + b"1," * 50_000 + b"1]", 8192)
    assert not has_few_elements(b'["' + b'\\"' * 50_000 + b'", ' + b"1," * 50_000 + b"1]", 8192)
