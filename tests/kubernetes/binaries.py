"""Find the control plane's programs in the folder KUBEBUILDER_ASSETS, or build one program with Go.

The built program contains etcd, API server, controller manager and scheduler. A first build takes some minutes.
`python -m tests.kubernetes.binaries` builds the program beforehand; the command needs only the standard library.
"""

import os
import sys
from pathlib import Path

from tests.go_programs import BuildError, GoProgram, NoProgramError

CONTROL_PLANE = GoProgram(Path(__file__).parent / "controlplane", "k8s.io/kubernetes", packages=2500)

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
PARTS = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)


def command_of(part: str) -> list[str]:
    """Return the command that starts a part. Build the part if necessary. Raise NoProgramError or BuildError."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return [str(control_plane_program()), part]
    path = Path(assets) / part
    if not path.is_file():
        raise NoProgramError(f"KUBEBUILDER_ASSETS: there is no {path}")
    return [str(path)]


def control_plane_program() -> Path:
    """Return the built program's path. Build it if necessary. Raise NoProgramError or BuildError."""
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    # kubectl refuses a server that reports no version.
    named = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return CONTROL_PLANE.build(*(f"-X k8s.io/component-base/version.{name}={value}" for name, value in named.items()))


def is_built() -> bool:
    """Return whether the control plane can start without a build."""
    return "KUBEBUILDER_ASSETS" in os.environ or CONTROL_PLANE.is_built


def kubernetes_version() -> str:
    return CONTROL_PLANE.version


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{control_plane_program()}\n")
    except (NoProgramError, BuildError) as error:
        sys.exit(str(error))
