"""Signatures of generations, by Ed25519.

A signature covers the bytes of a generation's record: the generation's number, its models, and the hash of each
model's manifest. The manifest has the hash of the model's file. So a signed record decides every byte that is loaded,
no models of two generations can be mixed, and none can get another number. Which of the signed generations is in force
is not signed: a rollback only moves the pointer.

`cryptography` is imported only where there is a key: it takes memory, and is installed only with the extra `signing`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from model_store.exceptions import StoreError, UntrustedError
from model_store.manifest import sha256_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# Every signed text begins with this line. If the key signs other things too, those are no signatures of generations.
_CONTEXT = b"headroom model generation\n"
_KEY_ID_DIGITS = 16
_PEM_END = b"-----END PUBLIC KEY-----"


class Signature(msgspec.Struct, frozen=True):
    """The content of a signature file. `key` identifies the public key; see `key_id`."""

    key: str
    signature: bytes


@dataclass(frozen=True)
class Trust:
    """The files of the keys that sign what is published, and of those that must have signed what is read.

    Without a file nothing is signed, or everything is read. What the signing key has signed may always be read. The
    files are read at each use, so that replaced keys count without a restart.
    """

    signing_key_file: str = ""
    verify_key_file: str = ""

    @property
    def verifies(self) -> bool:
        """True if only signed generations may be read."""
        return bool(self.signing_key_file or self.verify_key_file)

    def check_files(self) -> None:
        """Raise StoreError if a key can't be used."""
        if self.signing_key_file:
            _read_signing_key(self.signing_key_file)
        if self.verifies:
            self._public_keys()

    def sign(self, record: bytes) -> bytes | None:
        """Return the content of a record's signature file; None without a signing key."""
        if not self.signing_key_file:
            return None
        key = _read_signing_key(self.signing_key_file)
        return msgspec.json.encode(Signature(key_id(key.public_key()), key.sign(_CONTEXT + record))) + b"\n"

    def check(self, record: bytes, signature: bytes | None, where: str) -> None:
        """Raise UntrustedError unless one of the keys has signed the record that was read from `where`."""
        if signature is None:
            raise UntrustedError(f"{where} is not signed; only generations signed by a known key are loaded")
        try:
            found = msgspec.json.decode(signature, type=Signature)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UntrustedError(f"{where} has an unreadable signature: {error}") from error
        known = self._public_keys()
        if found.key not in known:
            raise UntrustedError(f"{where} is signed by the unknown key {found.key[:_KEY_ID_DIGITS]!r}")
        if not _is_valid(known[found.key], found.signature, _CONTEXT + record):
            raise UntrustedError(f"{where} differs from what key {found.key} has signed")

    def _public_keys(self) -> dict[str, "Ed25519PublicKey"]:
        keys = list(_read_verify_keys(self.verify_key_file)) if self.verify_key_file else []
        if self.signing_key_file:
            keys.append(_read_signing_key(self.signing_key_file).public_key())
        return {key_id(key): key for key in keys}


NO_TRUST = Trust()


def key_id(key: "Ed25519PublicKey") -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the raw public key."""
    return sha256_of(key.public_bytes_raw())[:_KEY_ID_DIGITS]


def make_keys(signing_key_file: Path, verify_key_file: Path) -> str:
    """Write a new pair of keys in PEM, and return its id; raise StoreError if a file exists or can't be written."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for path, data, mode in ((signing_key_file, private, 0o600), (verify_key_file, public, 0o644)):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise StoreError(f"can't create {path}: {error.strerror}") from error
        with open(descriptor, "wb") as file:
            file.write(data)
    return key_id(key.public_key())


def _read_signing_key(path: str) -> "Ed25519PrivateKey":
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise StoreError(f"signing key {path}: not an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"signing key {path}: not an Ed25519 key")
    return key


def _read_verify_keys(path: str) -> Iterator["Ed25519PublicKey"]:
    """Yield the keys of a file of one or several public keys in PEM; raise StoreError if there is none."""
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    blocks = _read(path).split(_PEM_END)[:-1]
    if not blocks:
        raise StoreError(f"verify key {path}: no public key in PEM")
    for block in blocks:
        try:
            key = load_pem_public_key(block + _PEM_END)
        except ValueError as error:
            raise StoreError(f"verify key {path}: not a public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise StoreError(f"verify key {path}: not an Ed25519 key")
        yield key


def _is_valid(key: "Ed25519PublicKey", signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreError(f"can't read the key {path}: {error.strerror}") from error


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise StoreError("signatures need cryptography: install Headroom with its extra signing") from error
