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
from pathlib import Path

_SOURCES = Path(__file__).parent / "controlplane"
_FILES = ("go.mod", "go.sum", "main.go")


ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"


class NoControlPlaneError(Exception):
    """A part of the control plane is not there, and can't be built."""


def command_of(part: str) -> list[str]:
    """How a part is started, built if need be. NoControlPlaneError."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return [str(control_plane_program()), part]
    path = Path(assets) / part
    if not path.is_file():
        raise NoControlPlaneError(f"KUBEBUILDER_ASSETS: there is no {path}")
    return [str(path)]


def control_plane_program() -> Path:
    """Where the built program is, built if need be. NoControlPlaneError when it is not built and can't be."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headroom"
    program = folder / f"controlplane-{_fingerprint()}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "controlplane.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    unfinished = program.with_suffix(".unfinished")
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    # kubectl refuses a server that doesn't say which version it is.
    named = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in named.items())
    subprocess.run(
        [_go(), "build", "-trimpath", "-mod=readonly", "-ldflags", f"-s -w {flags}", "-o", str(unfinished), "."],
        cwd=_SOURCES,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
    )
    unfinished.replace(program)


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
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if found is None:
        raise NoControlPlaneError("no Go toolchain on PATH to build a Kubernetes control plane with")
    return found


if __name__ == "__main__":
    sys.stdout.write(f"{control_plane_program()}\n")
