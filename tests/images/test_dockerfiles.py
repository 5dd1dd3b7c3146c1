"""Tests of the Dockerfiles' text, and of the images' lock files."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.image_locks import IMAGES

SED = shutil.which("sed") or "sed"
ROOT = Path(__file__).resolve().parents[2]
MODULES = {"epp": "epp", "latency-training": "trainer", "latency-prediction": "predictor"}


def dockerfile(image: str) -> str:
    return (ROOT / "images" / image / "Dockerfile").read_text()


def test_the_linter_accepts_the_dockerfiles() -> None:
    files = [str(ROOT / "images" / image / "Dockerfile") for image in IMAGES]
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, *files], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_linter_reports_a_bad_dockerfile(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(dockerfile("epp").replace("apt-get install -y", "apt-get install"))
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, bad], capture_output=True, text=True, check=False)
    assert "DL3014" in result.stdout


def test_the_images_lock_files_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, "scripts/image_locks.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_starts_its_module_as_an_unprivileged_user(image: str) -> None:
    lines = dockerfile(image).splitlines()
    assert lines[-1] == f'ENTRYPOINT ["python", "-m", "{MODULES[image]}"]'
    assert [line for line in lines if line.startswith("USER")] == ["USER 65532:65532"]
    # All COPY and RUN lines run as root, before the user changes.
    assert lines.index("USER 65532:65532") > max(i for i, line in enumerate(lines) if line.startswith(("COPY", "RUN")))


def test_all_images_have_one_base_that_is_pinned_by_its_digest() -> None:
    bases = {re.search(r"^ARG BASE=(\S+)$", dockerfile(image), re.MULTILINE) for image in IMAGES}
    names = {base[1] for base in bases if base}
    assert len(names) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", names.pop())
    for image in IMAGES:
        assert {line.split()[1] for line in dockerfile(image).splitlines() if line.startswith("FROM")} == {"${BASE}"}


@pytest.mark.parametrize("image", IMAGES)
def test_copied_files_exist_and_are_not_ignored(image: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in dockerfile(image).splitlines() if re.match(r"COPY (?!--from)", line)]
    for name in (name for names in copied for name in names):
        assert (ROOT / name).exists()
        assert name.partition("/")[0] in allowed


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_all_labels(image: str) -> None:
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", dockerfile(image)))
    assert labels == {"title", "description", "licenses", "version", "revision", "created"}


def test_debians_packages_come_from_the_snapshot_of_one_day(tmp_path: Path) -> None:
    """Apply the Dockerfile's substitution to the list of sources in Debian's own images."""
    sources = tmp_path / "debian.sources"
    sources.write_text(
        "Types: deb\n# http://snapshot.debian.org/archive/debian/20260901T000000Z\nURIs: http://deb.debian.org/debian\n"
        "Suites: trixie trixie-updates\n\nTypes: deb\nURIs: http://deb.debian.org/debian-security\n"
        "Suites: trixie-security\n"
    )
    for image in IMAGES:
        expression = re.search(r'sed -i -E "([^"]+)"', dockerfile(image))
        assert expression
        program = expression[1].replace("${DEBIAN_SNAPSHOT}", "20261115T000000Z")
        edited = subprocess.run([SED, "-E", program, sources], capture_output=True, text=True, check=True).stdout
        assert re.findall("^URIs: (.*)$", edited, re.MULTILINE) == [
            "http://snapshot.debian.org/archive/debian/20261115T000000Z",
            "http://snapshot.debian.org/archive/debian-security/20261115T000000Z",
        ]
