"""Tables and sections in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, is_text: bool = False) -> str:
    """Return a Markdown table. The first column is left-aligned; all others are right-aligned, unless `is_text`."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    other_columns = ("---|" if is_text else "---:|") * (len(head) - 1)
    return "\n".join((first, f"|---|{other_columns}", *others))


def section_of(page: str, title: str) -> str:
    """Return the text of a section of the second level, without its heading; empty if the page has none."""
    _, _, after = f"\n{page}".partition(f"\n## {title}\n")
    return after.partition("\n## ")[0].strip()


def with_section(page: str, title: str, text: str, *, before: str) -> str:
    """Return the page with this text as a section, in place of an older one, or before the section `before`.

    Without that section, the new one ends the page.
    """
    old = section_of(page, title)
    if old:
        page = f"\n{page}".replace(f"\n## {title}\n\n{old}\n", "", 1).lstrip("\n")
    head, found, rest = page.partition(f"\n## {before}\n")
    return f"{head.rstrip()}\n\n## {title}\n\n{text.strip()}\n" + (f"\n{found.lstrip()}{rest}" if found else "")
