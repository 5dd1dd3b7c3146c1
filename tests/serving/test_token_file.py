import logging
import os
from pathlib import Path

import pytest

from serving.token_file import TokenError, TokenFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token"


def test_every_line_is_a_token_and_a_client_sends_the_first(path: Path) -> None:
    path.write_text("new \n\nold\n")
    tokens = TokenFile(path)
    assert tokens.admits(b"Bearer new")
    assert tokens.admits(b"bearer  old")
    assert tokens.header() == {"authorization": "Bearer new"}


@pytest.mark.parametrize(
    "given", [b"", b"new", b"Basic new", b"Bearer", b"Bearer ", b"Bearer newer", b"Bearer new old"]
)
def test_anything_else_is_refused(given: bytes, path: Path) -> None:
    path.write_text("new\nold\n")
    assert not TokenFile(path).admits(given)


def test_a_changed_file_is_read_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path.write_text("old")
    tokens = TokenFile(path, poll_s=0)
    (path.parent / "next").write_text("new\nold")
    os.replace(path.parent / "next", path)
    assert tokens.admits(b"Bearer new")
    assert tokens.admits(b"Bearer old")
    path.write_text("new-only")
    assert not tokens.admits(b"Bearer old")
    # No token is logged.
    assert "loaded 1 tokens" in caplog.text
    assert "new-only" not in caplog.text


def test_an_unusable_file_leaves_the_old_tokens(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("old")
    tokens = TokenFile(path, poll_s=0)
    path.write_text("")
    assert tokens.admits(b"Bearer old")
    assert "has no token; write one a line; the old tokens stay" in caplog.text
    path.unlink()
    assert tokens.admits(b"Bearer old")


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "can't read .*: No such file"), (b" \n", "has no token"), (b"a b", "with spaces"), (b"\xff", "ASCII")],
)
def test_an_unusable_file_is_refused_at_the_start(text: bytes | None, reason: str, path: Path) -> None:
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(TokenError, match=rf"--token-file: .*{reason}"):
        TokenFile(path)
