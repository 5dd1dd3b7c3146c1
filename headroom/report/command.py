"""`headroom report`: say how requests fared, and what prediction gained or would gain."""

import json
import os
import time
from pathlib import Path

import click
import msgspec

from epp.flags import Duration
from headroom.report.rows import read_rows
from headroom.report.summary import summarize
from headroom.report.text import lines
from headroom.state import JOURNAL, state_folder
from headroom.terminal import printable

# About so many lines or points show how attainment went over time.
_INTERVALS = 24
_INTERVALS_S = (60, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--since", default="24h", type=Duration(), help="How far back to look, such as 30m or 24h.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--html",
    "page_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with pictures to this file.",
)
def report(folder: Path | None, since: float, as_json: bool, page_file: Path | None) -> None:
    """Say how the requests of the last day fared, and what prediction gained or would gain.

    FOLDER is the --state of `headroom up`, which is the default, or a picker's --outcome-journal. Intervals are 95 %
    intervals over blocks of requests that follow each other. The exit status is 1 if there is nothing to report.
    """
    given = folder or state_folder(os.environ)
    journal = given / JOURNAL if folder is None or (given / JOURNAL).is_dir() else given
    now = time.time()
    try:
        found = read_rows(journal, now - since)
    except OSError as error:
        raise click.ClickException(f"can't read {error.filename}: {error.strerror}") from error
    if found.unreadable:
        click.echo(f"{found.unreadable} lines can't be read and are left out", err=True)
    if not found.rows:
        raise click.ClickException(
            f"{journal} has no request since {_ago(since)}: headroom up writes there, "
            "as does a picker with --outcome-journal"
        )
    began_at = found.rows[0].decided_at
    summary = summarize(found.rows, _interval_s(now - began_at))
    words = [printable(line) for line in lines(summary)]
    if page_file:
        # Importing it takes longer than all else.
        from headroom.report.page import page

        try:
            page_file.write_text(page(found.rows, summary.over_time, words), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"can't write {page_file}: {error.strerror}") from error
        click.echo(f"wrote {page_file}", err=True)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(summary), indent=2))
        return
    for line in words:
        click.echo(line)


def _interval_s(seconds: float) -> int:
    return next((one for one in _INTERVALS_S if seconds / one <= _INTERVALS), _INTERVALS_S[-1])


def _ago(seconds: float) -> str:
    return f"{seconds / 3600:g} h ago" if seconds >= 3600 else f"{seconds / 60:g} min ago"
