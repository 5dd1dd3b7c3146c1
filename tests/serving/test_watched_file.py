import os
from pathlib import Path

from serving.watched_file import file_stamp


def test_the_stamp_changes_with_the_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert file_stamp(path) is None
    path.write_text("a")
    first = file_stamp(path)
    assert first == file_stamp(str(path))
    path.write_text("ab")
    assert file_stamp(path) not in (None, first)


def test_the_stamp_changes_when_a_file_of_the_same_size_and_time_replaces_it(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    for written in (path, other):
        written.write_text("a")
        os.utime(written, (1, 1))
    first = file_stamp(path)
    os.replace(other, path)
    assert file_stamp(path) not in (None, first)


def test_links_are_followed(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name).write_text("a")
        os.utime(tmp_path / name, (1, 1))
    link = tmp_path / "link"
    link.symlink_to("v1")
    first = file_stamp(link)
    (tmp_path / "next").symlink_to("v2")
    os.replace(tmp_path / "next", link)
    assert first == file_stamp(tmp_path / "v1")
    assert file_stamp(link) == file_stamp(tmp_path / "v2")


def test_an_inaccessible_path_has_no_stamp(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    assert file_stamp(tmp_path / "file" / "below") is None
