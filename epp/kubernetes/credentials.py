"""The Authorization header of a request to the API server, and the places where its value comes from."""

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from epp.kubernetes.exceptions import CredentialsError

# The longest run of an exec plugin in seconds. A plugin may ask a cloud for a token, or renew a login.
_PLUGIN_S: Final = 30.0


class _Variable(msgspec.Struct, frozen=True):
    name: str
    value: str


class ExecPlugin(msgspec.Struct, frozen=True):
    """A command that prints a token: https://kubernetes.io/docs/reference/access-authn-authz/authentication/."""

    apiVersion: Literal[  # noqa: N815
        "client.authentication.k8s.io/v1",
        "client.authentication.k8s.io/v1beta1",
        "client.authentication.k8s.io/v1alpha1",
    ]
    command: str
    args: list[str] | None = None
    env: list[_Variable] | None = None


class _ExecStatus(msgspec.Struct, frozen=True):
    token: str


class _ExecCredential(msgspec.Struct, frozen=True):
    status: _ExecStatus


class Credentials:
    """The Authorization header. It is obtained for the first request, and again when the server refuses it.

    Raises CredentialsError.
    """

    def __init__(self, obtain: Callable[[], Awaitable[str]]) -> None:
        self._obtain = obtain
        self._header: str | None = None
        self._lock = asyncio.Lock()

    async def header(self, refused: str | None = None) -> str:
        """Return the header's value; empty for none. `refused` is the value that the server did not accept (401)."""
        async with self._lock:
            if self._header is None or self._header == refused:
                self._header = await self._obtain()
            return self._header


def anonymous() -> Credentials:
    return _fixed("")


def from_password(username: str, password: str) -> Credentials:
    return _fixed(f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}")


def from_token(token: str) -> Credentials:
    return _fixed(_bearer(token))


def from_token_file(path: Path) -> Credentials:
    """Read the token from a file that is renewed from outside, as the kubelet renews a service account's token."""

    async def obtain() -> str:
        try:
            return _bearer(await asyncio.to_thread(path.read_text))
        except (OSError, ValueError) as error:
            raise CredentialsError(f"token file {path}: {error}") from error

    return Credentials(obtain)


def from_plugin(plugin: ExecPlugin) -> Credentials:
    """Run the plugin for a token."""

    async def obtain() -> str:
        try:
            return _bearer(msgspec.json.decode(await _output(plugin), type=_ExecCredential).status.token)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise CredentialsError(f"exec plugin {plugin.command}: {str(error) or 'no answer in time'}") from error

    return Credentials(obtain)


def _fixed(header: str) -> Credentials:
    async def obtain() -> str:
        return header

    return Credentials(obtain)


def _bearer(token: str) -> str:
    """Return the header's value. ValueError when the token can't stand in a header."""
    token = token.strip()
    if not token.isascii() or not token.isprintable():
        raise ValueError("the token contains characters that no token has")
    return f"Bearer {token}"


async def _output(plugin: ExecPlugin) -> bytes:
    asked = {"apiVersion": plugin.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
    environ = {
        **os.environ,
        "KUBERNETES_EXEC_INFO": msgspec.json.encode(asked).decode(),
        **{variable.name: variable.value for variable in plugin.env or ()},
    }
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        plugin.command, *(plugin.args or ()), env=environ, stdin=none, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(_PLUGIN_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"exit code {process.returncode}: {errors.decode(errors='replace').strip()}")
    return output
