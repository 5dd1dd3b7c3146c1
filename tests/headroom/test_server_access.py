"""Envoy gets the CAs that Python's clients trust, and a file that can't be used is named."""

from pathlib import Path

import click
import pytest

from headroom.servers.access import ServerAccess
from tests.serving.authority import Authority


def test_the_system_s_authorities_are_passed_on_from_a_file_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    with pytest.raises(click.ClickException, match="this machine has no CA certificates: --server-ca-file"):
        ServerAccess().authorities()
    pem = Authority().pem.decode()
    (folder / "0a1b2c3d.0").write_text(pem)
    (folder / "readme").write_text("no certificate")
    assert ServerAccess().authorities() == pem
    other = Authority("another")
    monkeypatch.setenv("SSL_CERT_FILE", other.write_ca(tmp_path / "all.pem"))
    assert ServerAccess().authorities() == other.pem.decode()


def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("no certificate")
    with pytest.raises(click.ClickException, match=f"can't read the certificates in {file}"):
        ServerAccess(ca_file=file).authorities()


def test_a_key_with_spaces_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("two words\n")
    with pytest.raises(click.ClickException, match="holds no API key: expected one line of text without spaces"):
        ServerAccess(key_file=file).api_key()
