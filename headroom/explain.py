"""`headroom explain`: say in words why a picker sent a request where it went, and what came of it."""

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import click

from epp.request.wording import in_words
from headroom.terminal import printable

_TIMEOUT_S = 10.0
_LARGEST = 64 << 20
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("request_id", default="")
@click.option("--url", default="http://127.0.0.1:9090", show_envvar=True, help="The picker's metrics port.")
@click.option("--token-file", type=_FILE, help="File with the bearer token, for --metrics-endpoint-auth.")
@click.option("--ca-file", type=_FILE, help="Certificates to trust, in PEM format.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as the picker tells it.")
def explain(request_id: str, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Say why the picker sent a request where it went, and what came of it.

    REQUEST_ID is the request's x-request-id. Without it, the newest request is explained. The picker remembers the
    latest requests only (--debug-decisions). In Kubernetes, reach it by `kubectl port-forward deploy/NAME-epp 9090`.
    """
    query = urllib.parse.urlencode({"limit": 1, "request_id": request_id})
    decisions = _get(f"{url.rstrip('/')}/debug/decisions?{query}", token_file, ca_file)["decisions"]
    if not decisions:
        which = f"no request {request_id!r} among its latest" if request_id else "no request yet"
        raise click.ClickException(f"the picker at {url} remembers {which}; --debug-decisions says how many it keeps")
    if as_json:
        click.echo(json.dumps(decisions[0], indent=2))
        return
    for line in in_words(decisions[0]):
        click.echo(printable(line))


def _get(url: str, token_file: Path | None, ca_file: Path | None) -> Any:
    """Return the JSON of an answer. ClickException says what to do about any other answer."""
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--url: expected http://HOST:PORT, got {url.partition('/debug')[0]}")
    request = urllib.request.Request(url)  # noqa: S310 (the scheme was checked)
    try:
        if token_file is not None:
            request.add_header("authorization", f"Bearer {token_file.read_text().strip()}")
        trusted = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=trusted) as answer:  # noqa: S310
            return json.loads(answer.read(_LARGEST))
    except urllib.error.HTTPError as error:
        raise click.ClickException(f"{url} answered with status {error.code}: {_problem(error)}") from error
    except urllib.error.URLError as error:
        raise click.ClickException(f"can't reach the picker at {url}: {error.reason}; --url names it") from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{url} is no page of a picker's metrics port: {error}") from error


def _problem(error: urllib.error.HTTPError) -> str:
    text = error.read(2000).decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:200] or str(error.reason)
