"""`python -m lab.reference`: write the references of commands and of the chart's values."""

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from lab.reference import commands, values

DOCS = Path(__file__).parents[2] / "docs"
PAGES: Mapping[str, Callable[[], str]] = {
    "reference-commands.md": commands.reference,
    "reference-values.md": values.reference,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Write the pages of the documentation that are references of commands and of the chart's values."""
    for name, reference in PAGES.items():
        (DOCS / name).write_text(reference())
        click.echo(f"wrote docs/{name}")


if __name__ == "__main__":
    main(prog_name="python -m lab.reference")
