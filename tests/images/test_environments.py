"""Tests of each image's environment: installed into a folder as its Dockerfile does, started as the image's user."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from headroom.processes.ports import free_port
from scripts.image_locks import IMAGES
from tests.live import PATIENCE_S, call, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
USER = 65532
TRAINING = {"xgboost-cpu", "xgboost", "lightgbm", "scikit-learn", "pandas", "onnx", "onnxmltools", "scipy"}
ROUTING = {"lightkube", "kubernetes", "aiohttp", "envoy-data-plane", "grpcio-health-checking"}
TOOLS = {"pip", "setuptools", "wheel", "uv", "pytest", "mypy", "cyclonedx-bom", "hypothesis"}
UNWANTED = {"epp": TRAINING | {"lightkube"}, "latency-training": ROUTING, "latency-prediction": TRAINING | ROUTING}
# Limits in MiB on x86_64, with room for new versions. An image above its limit has got something new.
LARGEST_MIB = {"epp": 420, "latency-training": 620, "latency-prediction": 300}
# Libraries in Debian's slim image: glibc, the runtimes that apt is linked with, and those of Python.
IN_BASE = re.compile(r"(linux-vdso|ld-linux[\w-]*|lib(c|m|dl|rt|pthread|util|gcc_s|stdc\+\+|z))\.so\.\d+")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process as another user")


@pytest.fixture(scope="module")
def roots() -> Iterator[Path]:
    """A folder with one environment per image, made by images/install. All users can read, only the owner can write."""
    with tempfile.TemporaryDirectory(prefix="headroom-images-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        python = _interpreter(folder / "python")
        installs = [_install(image, folder / image, python) for image in IMAGES]
        for install in installs:
            sys.stderr.write(_finish(install).splitlines()[-1] + "\n")
        yield folder


def _interpreter(folder: Path) -> Path:
    """Return this Python if all users can start it, else a copy: under a home folder only the owner can start it."""
    if (copied := folder / "bin" / "python3").exists():
        return copied
    own = Path(sys.base_prefix) / "bin" / "python3"
    try:
        subprocess.run([own, "-c", ""], user=USER, group=USER, extra_groups=[], cwd="/", check=True)
    except PermissionError:
        if os.geteuid() != 0:
            return Path(sys.executable)
        left_out = shutil.ignore_patterns("site-packages", "test", "*.a", "include", "share")
        shutil.copytree(sys.base_prefix, folder, symlinks=True, ignore=left_out)
        subprocess.run([copied, "-m", "ensurepip"], check=True, capture_output=True)
        return copied
    return Path(sys.executable)


def _install(image: str, folder: Path, python: Path) -> "subprocess.Popen[str]":
    command = [str(ROOT / "images" / "install"), f"images/{image}.lock", str(folder)]
    env = os.environ | {"PYTHON": str(python)}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(install: "subprocess.Popen[str]") -> str:
    output, _ = install.communicate()
    assert install.returncode == 0, output
    return output


def _packages(root: Path) -> dict[str, str]:
    """Return the versions of installed packages by name, from the folders in site-packages."""
    found = (path.name.removesuffix(".dist-info") for path in root.glob("lib/python3*/site-packages/*.dist-info"))
    return {re.sub(r"[-_.]+", "-", name.rpartition("-")[0]).lower(): name.rpartition("-")[2] for name in found}


@pytest.mark.parametrize("image", IMAGES)
def test_the_dockerfile_runs_the_same_install(image: str) -> None:
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    runs = [line for line in text.splitlines() if "images/install" in line and line.startswith("RUN")]
    assert runs == [f"RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 images/install images/{image}.lock /opt/headroom"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_locked_packages_and_none_of_other_images(roots: Path, image: str) -> None:
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / "images" / f"{image}.lock").read_text(), re.MULTILINE))
    packages = _packages(roots / image)
    assert {name: version for name, version in packages.items() if name != "headroom"} == locked
    assert not packages.keys() & (UNWANTED[image] | TOOLS)
    assert {path.name for path in (roots / image / "bin").iterdir()}.isdisjoint({"pip", "pip3", "cyclonedx-py"})


@pytest.mark.parametrize("image", IMAGES)
def test_the_bill_of_materials_names_all_packages(roots: Path, image: str) -> None:
    bill = json.loads((roots / image / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "headroom"
    named = {(re.sub(r"[-_.]+", "-", part["name"]).lower(), part["version"]) for part in bill["components"]}
    assert named == set(_packages(roots / image).items()) - {("headroom", "0.1.0")}
    assert all(part["purl"].startswith("pkg:pypi/") for part in bill["components"])


@pytest.mark.parametrize("image", IMAGES)
def test_every_shared_library_is_in_the_image_or_its_base(roots: Path, image: str) -> None:
    libraries = [path for path in (roots / image / "lib").rglob("*.so*") if path.is_file()]
    listed = subprocess.run(["ldd", *libraries], capture_output=True, text=True, check=False).stdout  # noqa: S607
    wanted = set(re.findall(r"^\s+(\S+) => (?!/\S+/site-packages/)", listed, re.MULTILINE))
    # Libraries inside wheels don't find each other by path. They work because Python has loaded them before.
    carried = {path.name for path in libraries}
    missing = {name for name in wanted - carried if not IN_BASE.fullmatch(name)}
    installs = (ROOT / "images" / image / "Dockerfile").read_text()
    assert missing == ({"libgomp.so.1"} if "libgomp1 \\\n" in installs else set())


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_small(roots: Path, image: str) -> None:
    # A hard-linked file counts once, as in a layer.
    files = {status.st_ino: status.st_size for status in map(os.lstat, (roots / image).rglob("*"))}
    assert sum(files.values()) >> 20 < LARGEST_MIB[image]


@contextmanager
def container(roots: Path, image: str, flags: Sequence[str], health: str, folder: Path) -> Iterator[None]:
    """Run an image's entry point with the image's PATH and user; enter once it is healthy."""
    entry = re.search(r'^ENTRYPOINT \["python", "(-m)", "(\w+)"\]$', _dockerfile(image), re.MULTILINE)
    assert entry
    command = [str(roots / image / "bin" / "python"), *entry.groups(), *flags]
    log = folder / f"{image}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd="/",
            # LD_LIBRARY_PATH is for a copied Python, which would look for its library at its original path.
            env={"PATH": f"{roots / image}/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": f"{roots}/python/lib"},
            stdout=output,
            stderr=output,
            user=USER,
            group=USER,
            extra_groups=[],
        )
        try:
            until(lambda: _answers(process, health, log))
            yield
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, log.read_text()


def _dockerfile(image: str) -> str:
    return (ROOT / "images" / image / "Dockerfile").read_text()


def _answers(process: "subprocess.Popen[bytes]", url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return call(url)[0] == 200
    except OSError:
        return False


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that the images' user can write."""
    folder = Path(tempfile.mkdtemp(prefix="headroom-volume-"))
    os.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)


def _samples(count: int) -> dict[str, list[dict[str, float]]]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(10, 2000, count)
    rows = [
        {
            "kv_cache_percentage": float(rng.random()),
            "input_token_length": int(length),
            "num_request_waiting": 0,
            "num_request_running": 1,
            "num_tokens_generated": 10,
            "prefix_cache_score": 0.0,
            "actual_ttft_ms": 20.0 + int(length) / 10,
            "actual_tpot_ms": 10.0 + int(length) / 1000,
        }
        for length in tokens
    ]
    return {"entries": rows}


@needs_root
def test_the_three_images_work_together_as_another_user_on_read_only_trees(
    roots: Path, volume: Path, tmp_path: Path
) -> None:
    """The trainer publishes models; the predictor serves them, and so does the picker, with all its options on."""
    training, prediction, metrics = free_port(), free_port(), free_port()
    here = ["--host", "127.0.0.1"]
    store = ["--model-store", str(volume)]
    tokenizer = _tokenizer(roots)
    picking = ["--endpoints", "127.0.0.1:1", "--enable-latency-predictor", "--latency-client", "embedded", "--tracing"]
    ports = ["--grpc-port", str(free_port()), "--grpc-health-port", "0", "--metrics-port", str(metrics)]
    delay = ["--shutdown-delay", "0s", "--tokenizer", tokenizer]
    trainer_flags = [*here, "--port", str(training), *store, "--model-type", "lightgbm"]
    predictor_flags = [*here, "--port", str(prediction), *store, "--model-sync-interval-sec", "0.1"]
    with container(roots, "latency-training", trainer_flags, f"http://127.0.0.1:{training}/healthz", tmp_path):
        assert call(f"http://127.0.0.1:{training}/add_training_data_bulk", _samples(600))[0] == 202
        until(lambda: call(f"http://127.0.0.1:{training}/readyz")[0] == 200)
        with container(roots, "latency-prediction", predictor_flags, f"http://127.0.0.1:{prediction}/readyz", tmp_path):
            assert call(f"http://127.0.0.1:{prediction}/predict", _samples(1)["entries"][0])[0] == 200
            page = f"http://127.0.0.1:{metrics}/metrics"
            with container(roots, "epp", [*here, *ports, *store, *picking, *delay], page, tmp_path):
                assert "headroom_epp" in call(page)[1]
    for image in IMAGES:
        assert "Permission denied" not in (tmp_path / f"{image}.log").read_text()


def _tokenizer(folder: Path) -> str:
    """A file that anybody may read. pytest's own folders won't do: each session shuts them to other users."""
    path = folder / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": {"hello": 0, "?": 1}, "unk_token": "?"}
    path.write_text(json.dumps({"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}}))
    path.chmod(0o644)
    return str(path)


def test_two_installs_make_the_same_files(roots: Path, tmp_path: Path) -> None:
    """Install again into the same folder: its path is part of the installed scripts."""
    folder, first = roots / "latency-prediction", tmp_path / "first"
    shutil.move(folder, first)
    _finish(_install("latency-prediction", folder, _interpreter(roots / "python")))
    assert _digests(first) == _digests(folder)
    assert not [path for path in folder.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
