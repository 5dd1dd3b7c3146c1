"""Become a container's process: `python -m tests.node.launch SPEC STATUS`, two inherited descriptors.

SPEC holds a ProcessSpec. STATUS receives the reason if the process could not start; a running process closes it
without a word. The process is the first one of a PID namespace. Its parent stays outside and hands SIGTERM on. The
parent's exit code is that of the process, or 128 plus the signal's number. This module imports little, and only from
the standard library, so that it starts in some hundredths of a second.
"""

import os
import signal
import socket
import sys
from pathlib import Path

from tests.node import linux
from tests.node.process_spec import Mount, ProcessSpec, decode

# Folders of the machine's root that an image would have. All others are hidden; mounts bring some of them back.
_SYSTEM = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "var", "dev", "proc", "sys"}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_HOST = "/.host"


def main(spec_descriptor: int, status_descriptor: int) -> None:
    with open(spec_descriptor, "rb") as file:
        spec = decode(file.read())
    os.set_inheritable(status_descriptor, False)
    try:
        linux.end_with_parent()
        enter_namespaces(spec)
        child = os.fork()
        if child:
            os.close(status_descriptor)
            os._exit(wait_for(child))
        if not spec.join_pid:
            linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
            build_root(spec)
        take_identity(spec)
        os.chdir(spec.cwd)
        os.execvpe(spec.argv[0], spec.argv, spec.env)  # noqa: S606
    except Exception as error:
        os.write(status_descriptor, f"{error}".encode())
        os._exit(128)


def wait_for(child: int) -> int:
    """Wait for the process's end and return its exit code. Hand SIGTERM and SIGINT on to the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _: os.kill(child, which))
    for descriptor in range(3):
        os.close(descriptor)
    return _code(os.waitpid(child, 0)[1])


def _code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def enter_namespaces(spec: ProcessSpec) -> None:
    own = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC
    if spec.join_pid:
        process = os.pidfd_open(spec.join_pid)
        linux.setns(process, own | linux.CLONE_NEWNET)
        os.close(process)
        return
    linux.setns(spec.network, linux.CLONE_NEWNET)
    os.close(spec.network)
    linux.unshare(own)
    socket.sethostname(spec.hostname)


def build_root(spec: ProcessSpec) -> None:
    """Build the root file system: the machine's system folders, a layer in memory above them, and the mounts."""
    linux.mount("tmpfs", spec.scratch, "tmpfs", options="mode=755")
    upper, work, root = (Path(spec.scratch) / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    _hide(upper)
    linux.mount("overlay", str(root), "overlay", options=f"lowerdir=/,upperdir={upper},workdir={work}")
    (root / _HOST[1:]).mkdir()
    linux.pivot_root(str(root), f"{root}{_HOST}")
    os.chdir("/")
    linux.mount("proc", "/proc", "proc")
    linux.mount("sysfs", "/sys", "sysfs", linux.MS_RDONLY)
    _make_devices()
    # A mount may lie inside another one: bind shorter paths first, and set read-only last.
    ordered = sorted(spec.mounts, key=lambda mount: len(mount.target))
    for mount in ordered:
        _bind(mount)
    Path(spec.cwd).mkdir(parents=True, exist_ok=True)
    linux.detach(_HOST)
    os.rmdir(_HOST)
    for target in [*(mount.target for mount in ordered if mount.read_only), *(["/"] if spec.read_only_root else [])]:
        linux.mount("none", target, flags=linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY)


def _hide(upper: Path) -> None:
    for name in os.listdir("/"):
        found = Path("/", name)
        if name not in _SYSTEM and found.is_dir() and not found.is_symlink():
            hidden = upper / name
            hidden.mkdir(mode=0o755)
            os.setxattr(hidden, "trusted.overlay.opaque", b"y")
    for name in ("tmp", "var/tmp"):
        (upper / name).mkdir(parents=True, exist_ok=True)
        (upper / name).chmod(0o1777)


def _make_devices() -> None:
    linux.mount("tmpfs", "/dev", "tmpfs", linux.MS_NOSUID, "mode=755")
    for name in _DEVICES:
        Path("/dev", name).touch()
        linux.mount(f"{_HOST}/dev/{name}", f"/dev/{name}", flags=linux.MS_BIND)
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        Path("/dev", name).symlink_to(f"/proc/self/fd{target}")
    Path("/dev/shm").mkdir()  # noqa: S108
    linux.mount("tmpfs", "/dev/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")  # noqa: S108


def _bind(mount: Mount) -> None:
    source, target = Path(f"{_HOST}{mount.source}"), Path(mount.target)
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    linux.mount(str(source), mount.target, flags=linux.MS_BIND)


def take_identity(spec: ProcessSpec) -> None:
    linux.limit_capabilities(frozenset(spec.capabilities))
    os.setgroups(spec.groups)
    os.setgid(spec.gid)
    os.setuid(spec.uid)
    # Repeat it here, because a change of identity clears the parent-death signal.
    linux.end_with_parent()
    if spec.no_new_privileges:
        linux.forgo_privileges()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
