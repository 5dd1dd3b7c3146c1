"""URLs of model servers become addresses, or an error that names the URL."""

import click
import pytest

from headroom.up.pool import places


def test_names_are_resolved_and_kept_as_names() -> None:
    [first, second] = places(["http://localhost:8000", "http://[::1]:8001/"])
    assert (first.name, first.address) in (("localhost:8000", "127.0.0.1:8000"), ("localhost:8000", "[::1]:8000"))
    assert second.address == "[::1]:8001"


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
