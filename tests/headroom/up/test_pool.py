"""URLs of model servers become addresses, or an error that names the URL."""

import click
import pytest

from epp.pool.endpoint_list import ListedEndpoint, parse_file
from epp.scraping.engines import ENGINE_LABELS
from headroom.up.pool import endpoints_file, places, with_engine


def test_names_are_resolved_and_kept_as_names() -> None:
    [first, second] = places(["http://localhost:8000", "http://[::1]:8001/"])
    assert (first.name, first.address) in (("localhost:8000", "127.0.0.1:8000"), ("localhost:8000", "[::1]:8000"))
    assert second.address == "[::1]:8001"


def test_the_picker_reads_what_is_written_for_it() -> None:
    first, second = ListedEndpoint("gpu1:8000", "10.0.0.1", 8000), ListedEndpoint("gpu2:8000", "::1", 8000)
    pool = [with_engine(first, "sglang"), with_engine(second, "")]
    first, second = parse_file(endpoints_file(pool).encode())
    assert (first.name, first.address, first.labels) == ("gpu1:8000", "10.0.0.1:8000", {ENGINE_LABELS[0]: "sglang"})
    assert (second.address, second.labels) == ("[::1]:8000", {})


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("gpu1:8000", "is no URL of a server: expected http://HOST:PORT"),
        ("http://gpu1:8000/v1", "is no URL of a server: expected http://HOST:PORT"),
        ("https://127.0.0.1:8000", "only servers without TLS"),
        ("http://no-such-host.invalid:8000", "the name no-such-host.invalid is unknown"),
        ("http://127.0.0.1:80000", "out of range"),
        ("http://[::1", "Invalid IPv6 URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_named(url: str, problem: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        places([url])
    assert url in caught.value.message
    assert problem in caught.value.message


def test_a_server_is_named_once() -> None:
    with pytest.raises(click.UsageError, match=r"127\.0\.0\.1:8000 is named more than once"):
        places(["http://127.0.0.1:8000", "http://127.0.0.1:8000/"])
