"""`scripts/docs`: build the site of the documentation, and show it."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from headroom.processes.exceptions import PartError
from lab.environments import tell
from lab.site.build import ROOT, build
from lab.site.diagram_script import diagram_script


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--out", default="build/docs", type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--serve", type=click.IntRange(1, 65535), metavar="PORT", help="Serve the site on this machine's PORT.")
def main(out: Path, serve: int | None) -> None:
    """Build the site of docs/ as a folder of HTML, which any web server can serve.

    A broken link is an error. The site asks no other host for anything.
    """
    try:
        build(ROOT / "docs", out, diagram_script())
    except PartError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {out / 'index.html'}")
    if serve is None:
        return
    handler = partial(SimpleHTTPRequestHandler, directory=str(out))
    with ThreadingHTTPServer(("127.0.0.1", serve), handler) as server:
        tell(f"serving http://127.0.0.1:{serve}/ until Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            tell("stopped")


if __name__ == "__main__":
    main(prog_name="scripts/docs")
