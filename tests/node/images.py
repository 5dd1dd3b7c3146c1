"""Map image names to processes. No image is ever pulled; containers run this project's own interpreter.

`images/<name>/Dockerfile` says how a container of this project starts. Names that only tests use are listed here.
"""

import json
import shlex
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_OURS = {"epp": "epp", "latency-training": "trainer", "latency-prediction": "predictor"}
_NONROOT = 65532
_PYTHON = str(Path(sys.prefix).resolve() / "bin" / "python")


class ImageError(Exception):
    """There is no image of that name."""


@dataclass(frozen=True)
class Image:
    """The start of an image's containers. `user` and `group` are defaults, which the pod may override."""

    entrypoint: list[str]
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    user: int = _NONROOT
    group: int = _NONROOT
    cwd: str = "/"


def find_image(reference: str) -> Image:
    """Find an image by the last part of its name; ignore registry, tag and digest. Raise ImageError if unknown."""
    return _find_by_name(reference.split("@")[0].rpartition("/")[2].split(":")[0])


@cache
def _find_by_name(name: str) -> Image:
    dockerfile = ROOT / "images" / name / "Dockerfile"
    if dockerfile.exists():
        return from_dockerfile(dockerfile.read_text())
    if name in _OURS:
        return Image([_PYTHON, "-m", _OURS[name]], env=_python_env())
    if name == "simulator":
        return Image([_PYTHON, "-m", "simulator", "--host", "0.0.0.0"], env=_python_env())
    if name == "envoy":
        # Import only on demand: the package brings its own API's classes with it.
        from headroom.gateway.envoy import binary

        path = binary().resolve()
        env = _python_env()
        return Image([str(path)], env={**env, "PATH": f"{path.parent}:{env['PATH']}"})
    if name == "busybox":
        return Image([], ["sh"], _python_env())
    if name == "curl":
        return Image(["curl"], env=_python_env())
    raise ImageError(f'failed to pull and unpack image: no "{name}" among the images of this project')


def from_dockerfile(text: str) -> Image:
    """Read ENTRYPOINT, CMD, ENV and USER of the last stage.

    This interpreter replaces the image's, because the image's paths do not exist on this machine.
    """
    entrypoint: list[str] = []
    command: list[str] = []
    env: dict[str, str] = {}
    user = group = _NONROOT
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        match word.upper():
            case "FROM":
                entrypoint, command, env = [], [], {}
            case "ENTRYPOINT":
                entrypoint = json.loads(rest)
            case "CMD":
                command = json.loads(rest)
            case "ENV":
                env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "USER":
                numbers = [int(part) if part.isdigit() else _NONROOT for part in rest.split(":")]
                user, group = numbers[0], numbers[-1]
    if entrypoint and Path(entrypoint[0]).name.startswith("python"):
        entrypoint = [_PYTHON, *entrypoint[1:]]
    return Image(entrypoint, command, {**env, **_python_env()}, user, group)


def visible_folders() -> list[str]:
    """Return the folders that each container sees read-only: the interpreter, its packages and this project."""
    found = {ROOT.resolve(), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    return sorted(str(path) for path in found if not path.is_relative_to("/usr"))


def _python_env() -> dict[str, str]:
    folder = Path(sys.prefix).resolve() / "bin"
    return {
        "PATH": f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(ROOT.resolve()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
