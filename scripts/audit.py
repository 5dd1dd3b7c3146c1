"""Ask PyPI for known weaknesses of the locked packages, with pip-audit, and say when it could not be asked."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from scripts.image_locks import IMAGES

ROOT: Final = Path(__file__).resolve().parent.parent
# Not a locked package: the auditor needs some thirty packages, and nothing else does.
_AUDITOR: Final = "pip-audit==2.10.1"
CLEAN, WEAK, UNKNOWN = 0, 1, 2


def judge(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return CLEAN, WEAK or UNKNOWN, and lines that say why, from pip-audit's report in JSON.

    pip-audit counts a package as clean if the service has no answer for it; here it is UNKNOWN.
    """
    packages = report["dependencies"]
    weak = [line for package in packages for line in _weaknesses(package)]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    lines = list(weak)
    if unknown:
        lines.append(f"not audited, since the advisory service has no answer: {', '.join(unknown)}")
    if not packages:
        lines.append("not audited: the report names no package")
    if weak:
        return WEAK, lines
    return (UNKNOWN, lines) if lines else (CLEAN, [f"{len(packages)} packages, no known weakness"])


def _weaknesses(package: Mapping[str, Any]) -> Iterator[str]:
    for found in package.get("vulns", ()):
        names = ", ".join((found["id"], *found.get("aliases", ())))
        fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
        yield f"{package['name']} {package['version']}: {names}; fixed in {fixed}"


def audit(lock: Path, service: str) -> tuple[int, list[str]]:
    """Run pip-audit on a lock file."""
    uv = Path(sys.executable).parent / "uv"
    flags = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    command = [
        str(uv),
        "tool",
        "run",
        "--quiet",
        "--from",
        _AUDITOR,
        "pip-audit",
        *flags,
        "-s",
        service,
        "-r",
        str(lock),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return judge(msgspec.json.decode(done.stdout))
    except msgspec.DecodeError:
        reason = (done.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1]
        return UNKNOWN, [f"not audited, since pip-audit or the advisory service can't be reached: {reason}"]


@click.command()
@click.argument("locks", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--service", default="pypi", type=click.Choice(["pypi", "osv"]), help="Advisory service to ask.")
def main(locks: tuple[Path, ...], service: str) -> None:
    """Look up known weaknesses of the packages in the lock files LOCKS, by default those of the images.

    Exit with 1 if there is one, and with 2 if a package could not be looked up.
    """
    statuses = set()
    for lock in locks or [ROOT / "images" / f"{image}.lock" for image in IMAGES]:
        status, lines = audit(lock, service)
        statuses.add(status)
        for line in lines:
            print(f"{lock.name}: {line}")
    sys.exit(WEAK if WEAK in statuses else max(statuses))


if __name__ == "__main__":
    main()
