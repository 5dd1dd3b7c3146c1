"""Tests of scripts/build-images.sh and its older names, with fake container engines that record their arguments."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "scripts/build-images.sh"
NAMES = {"IMAGE_REGISTRY": "quay.io/your-org", "EPP_TAG": "slo-experimental"}
TRAINING = ("latencypredictor-v2-training-server:latest", "quay.io/your-org/latency-training:slo-experimental")
PREDICTION = ("latencypredictor-v2-prediction-server:latest", "quay.io/your-org/latency-prediction:slo-experimental")
EPP = ("epp:latest", "quay.io/your-org/epp:slo-experimental")
ENGINE = '#!/bin/sh\necho "$(basename "$0") $*" >>"$RECORD"\nexit "${ENGINE_STATUS:-0}"\n'


class Shell:
    """A PATH with the given engines and the usual tools of a shell script, and nothing else."""

    def __init__(self, folder: Path, engines: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._record = folder, folder / "record"
        for name in ("sh", "dirname", "basename", "cat", "grep", "sed", "date", "git", "make"):
            if path := shutil.which(name):
                (folder / name).symlink_to(path)
        for name in engines:
            (folder / name).write_text(ENGINE)
            (folder / name).chmod(0o755)

    def run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        env = {"PATH": str(self._folder), "RECORD": str(self._record), **variables}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    def recorded(self) -> list[str]:
        return self._record.read_text().splitlines() if self._record.exists() else []


@pytest.fixture
def docker(tmp_path: Path) -> Shell:
    return Shell(tmp_path, ["docker"])


def images_built(lines: Sequence[str]) -> list[str]:
    return [line.split(" -t ")[1].split()[0] for line in lines if " build " in line]


def test_build_uses_each_images_dockerfile_with_labels_and_a_timestamp(docker: Shell) -> None:
    result = docker.run(SCRIPT, "build", SOURCE_DATE_EPOCH="1700000000", BUILD_FLAGS="--platform linux/arm64")
    assert result.returncode == 0, result.stderr
    lines = docker.recorded()
    assert images_built(lines) == [EPP[0], TRAINING[0], PREDICTION[0]]
    for line, image in zip(lines, ("epp", "latency-training", "latency-prediction"), strict=True):
        words = line.split()
        assert (ROOT / words[words.index("-f") + 1]) == ROOT / "images" / image / "Dockerfile"
        assert line.endswith("--build-arg CREATED=2023-11-14T22:13:20Z --platform linux/arm64 .")
        assert {"SOURCE_DATE_EPOCH=1700000000", "VERSION=0.1.0"} < set(words)


def test_all_builds_then_tags_then_pushes(docker: Shell) -> None:
    assert docker.run(SCRIPT, "all", **NAMES).returncode == 0
    lines = docker.recorded()
    assert [line.split()[1] for line in lines] == ["build"] * 3 + ["tag"] * 3 + ["push"] * 3
    assert lines[3:6] == [f"docker tag {local} {remote}" for local, remote in (EPP, TRAINING, PREDICTION)]
    assert lines[6:] == [f"docker push {remote}" for _, remote in (EPP, TRAINING, PREDICTION)]


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_builds_and_pushes_the_pickers_image(docker: Shell) -> None:
    result = docker.run("make", "image-build", "image-push", **NAMES)
    assert result.returncode == 0, result.stderr
    lines = docker.recorded()
    assert images_built(lines[:1]) == [EPP[0]]
    assert lines[1:] == [f"docker tag {EPP[0]} {EPP[1]}", f"docker push {EPP[1]}"]


def test_the_older_path_builds_images_to_tag_and_push_by_hand(docker: Shell) -> None:
    commands = """cd latencypredictor-v1
./build-deploy.sh build
docker tag latencypredictor-v2-training-server:latest ${IMAGE_REGISTRY}/latency-training:slo-experimental
docker tag latencypredictor-v2-prediction-server:latest ${IMAGE_REGISTRY}/latency-prediction:slo-experimental
docker push ${IMAGE_REGISTRY}/latency-training:slo-experimental
docker push ${IMAGE_REGISTRY}/latency-prediction:slo-experimental"""
    result = docker.run("sh", "-euc", commands, **NAMES)
    assert result.returncode == 0, result.stderr
    lines = docker.recorded()
    assert images_built(lines) == [TRAINING[0], PREDICTION[0]]
    assert lines[2:4] == [f"docker tag {local} {remote}" for local, remote in (TRAINING, PREDICTION)]


def test_the_latency_images_can_have_their_own_tag(docker: Shell) -> None:
    docker.run(SCRIPT, "push", **NAMES, LATENCY_TAG="v2")
    assert docker.recorded()[1:] == [
        f"docker push quay.io/your-org/latency-{name}:v2" for name in ("training", "prediction")
    ]


@pytest.mark.parametrize("engine", ["podman", "buildah"])
def test_other_engines_are_found_and_can_be_chosen(tmp_path: Path, engine: str) -> None:
    alone, both = Shell(tmp_path / "alone", [engine]), Shell(tmp_path / "both", ["docker", engine])
    alone.run(SCRIPT, "build", "epp", SOURCE_DATE_EPOCH="1700000000")
    both.run(SCRIPT, "build", "epp", SOURCE_DATE_EPOCH="1700000000", CONTAINER_ENGINE=engine)
    assert alone.recorded() == both.recorded()
    assert alone.recorded()[0].startswith(f"{engine} build ")
    assert "--timestamp 1700000000" in alone.recorded()[0]


def test_a_dry_run_prints_the_commands_of_a_run(docker: Shell, tmp_path: Path) -> None:
    printed = docker.run(SCRIPT, "all", **NAMES, DRY_RUN="1").stdout
    assert docker.recorded() == []
    docker.run(SCRIPT, "all", **NAMES)
    assert [f"+ {line}" for line in docker.recorded()] == printed.splitlines()
    (tmp_path / "docker").unlink()
    assert docker.run(SCRIPT, "all", **NAMES, DRY_RUN="1").stdout == printed


def test_a_failed_command_ends_the_script(docker: Shell) -> None:
    assert docker.run(SCRIPT, "all", **NAMES, ENGINE_STATUS="7").returncode == 7
    assert len(docker.recorded()) == 1


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["push"], {}, "IMAGE_REGISTRY is not set: export IMAGE_REGISTRY="),
        (["tag"], {"IMAGE_REGISTRY": "https://quay.io/org"}, "IMAGE_REGISTRY: 'https://quay.io/org' is not a registry"),
        (["tag"], NAMES | {"EPP_TAG": "a b"}, "EPP_TAG, LATENCY_TAG: 'a b' is not a tag"),
        (["tag"], NAMES | {"LATENCY_TAG": "-x"}, "EPP_TAG, LATENCY_TAG: '-x' is not a tag"),
        (["bild"], {}, "'bild' is neither a command nor an image"),
        ([], {}, "name a command: build, tag, push or all"),
        (["build"], {"CONTAINER_ENGINE": "crane"}, "CONTAINER_ENGINE: 'crane' is unknown"),
        (["build"], {"CONTAINER_ENGINE": "podman"}, "CONTAINER_ENGINE: there is no podman in PATH"),
        (["build"], {"SOURCE_DATE_EPOCH": "soon"}, "SOURCE_DATE_EPOCH: 'soon' is not a number of seconds"),
    ],
)
def test_an_error_is_reported_before_any_command_runs(
    docker: Shell, arguments: list[str], variables: dict[str, str], expected: str
) -> None:
    result = docker.run(SCRIPT, *arguments, **variables)
    assert result.returncode == 1
    assert expected in result.stderr
    assert docker.recorded() == []


def test_without_an_engine_the_error_names_what_to_install(tmp_path: Path) -> None:
    result = Shell(tmp_path, []).run(SCRIPT, "build")
    assert result.returncode == 1
    assert "install docker, podman or buildah" in result.stderr


def test_help_names_every_variable(docker: Shell) -> None:
    text = docker.run(SCRIPT, "--help").stdout
    script = (ROOT / SCRIPT).read_text()
    for name in ("IMAGE_REGISTRY", "EPP_TAG", "LATENCY_TAG", "CONTAINER_ENGINE", "BUILD_FLAGS", "SOURCE_DATE_EPOCH"):
        assert name in text
        assert f"${{{name}" in script
