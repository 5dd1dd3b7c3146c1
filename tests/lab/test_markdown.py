"""A section is put into a page, and replaced there, without any change to the rest."""

from lab.markdown import section_of, with_section

PAGE = "# Page\n\nHead.\n\n## One\n\ntext\n\n## Two\n\nmore\n"


def test_a_section_stands_before_the_named_one_and_is_replaced_in_place() -> None:
    once = with_section(PAGE, "New", "first\n", before="Two")
    assert once == "# Page\n\nHead.\n\n## One\n\ntext\n\n## New\n\nfirst\n\n## Two\n\nmore\n"
    assert section_of(once, "New") == "first"
    twice = with_section(once, "New", "second", before="Two")
    assert twice == once.replace("first", "second")
    assert section_of(PAGE, "New") == ""


def test_without_the_named_section_the_new_one_ends_the_page() -> None:
    page = with_section(PAGE, "New", "text", before="Three")
    assert page == PAGE + "\n## New\n\ntext\n"
    assert with_section(page, "New", "text", before="Three") == page
