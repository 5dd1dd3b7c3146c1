"""Test the commands, users and files that the agent derives from a pod's spec before anything runs."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.node.environment import ConfigurationError, argv, capabilities, expand, identity
from tests.node.images import ROOT, Image, ImageError, find_image, from_dockerfile
from tests.node.manifests import SECURITY, container, pod
from tests.node.objects import Container, Pod, to_pod
from tests.node.volumes import File, write_atomically

NAMES = st.from_regex(r"\A[A-Z_]{1,3}\Z")
PARTS = st.one_of(
    st.text("ab( )", max_size=3).map(lambda text: (text, text)),
    st.just(("$$", "$")),
    NAMES.map(lambda name: (f"$({name})", None)),
)
FILES = st.dictionaries(
    st.from_regex(r"\A[a-c](/[a-c])?\Z"), st.binary(max_size=9).map(lambda data: File(data, 0o644)), max_size=4
).filter(lambda files: not any(f"{name[0]}" in files and len(name) > 1 for name in files))


def made(**spec: object) -> Pod:
    return to_pod(pod("pod", container("busybox"), **spec))


def only(**fields: object) -> Container:
    return to_pod(pod("pod", {**container("busybox", "given"), **fields})).spec.containers[0]


@given(st.lists(PARTS), st.dictionaries(NAMES, st.text(max_size=3)))
def test_references_become_values(parts: list[tuple[str, str | None]], values: dict[str, str]) -> None:
    text = "".join(part for part, _ in parts)
    expected = [values.get(part[2:-1], part) if value is None else value for part, value in parts]
    assert expand(text, values) == "".join(expected)


def test_a_command_replaces_the_entry_point_and_its_arguments() -> None:
    image = Image(["entry", "$(X)"], ["default"])
    assert argv(only(args=[]), image, {"X": "1"}) == ["entry", "1", "default"]
    assert argv(only(), image, {}) == ["entry", "$(X)", "given"]
    assert argv(only(command=["other"], args=[]), image, {}) == ["other"]
    assert argv(only(command=["other"]), image, {}) == ["other", "given"]


def test_a_containers_identity_overrides_its_pods_and_its_images() -> None:
    image = Image([], user=1, group=2)
    assert identity(made(), only(), image) == (1, 2, [])
    inside = made(securityContext={"runAsUser": 5, "runAsGroup": 6, "fsGroup": 8, "supplementalGroups": [7]})
    assert identity(inside, only(), image) == (5, 6, [7, 8])
    assert identity(inside, only(securityContext={"runAsUser": 9}), image) == (9, 6, [7, 8])
    assert identity(made(securityContext={"runAsUser": 5}), only(), image) == (5, 0, [])
    with pytest.raises(ConfigurationError, match="image will run as root"):
        identity(made(), only(), Image([], user=0))


def test_capabilities_are_dropped_and_added() -> None:
    assert capabilities(only()) == []
    assert capabilities(only(securityContext={"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})) == [10]
    assert 10 in capabilities(only(securityContext={}))
    with pytest.raises(ConfigurationError, match="SYS_ADMIN"):
        capabilities(only(securityContext={**SECURITY, "capabilities": {"add": ["SYS_ADMIN"]}}))


def test_an_image_starts_by_its_dockerfile() -> None:
    text = """
FROM python AS build
ENTRYPOINT ["/bin/false"]
FROM python
ENV PATH=/opt/bin:$PATH \\
    ONE="a b"
USER 65532:65533
ENTRYPOINT ["/opt/bin/python", "-m", "epp"]
CMD ["--help"]
"""
    image = from_dockerfile(text)
    assert Path(image.entrypoint[0]).name == "python"
    assert image.entrypoint[1:] == ["-m", "epp"]
    assert (image.command, image.env["ONE"], image.user, image.group) == (["--help"], "a b", 65532, 65533)
    assert image.env["PYTHONPATH"] == str(ROOT)


@pytest.mark.parametrize("name", ["epp", "latency-training", "latency-prediction"])
def test_each_of_our_images_is_known(name: str) -> None:
    image = find_image(f"registry:5000/org/{name}:tag@sha256:{'0' * 64}")
    assert image.entrypoint[1] == "-m"
    assert (ROOT / image.entrypoint[2] / "__main__.py").exists()
    assert image.user


def test_other_images_are_unknown() -> None:
    with pytest.raises(ImageError, match='no "nginx"'):
        find_image("docker.io/library/nginx:1")


@settings(max_examples=40)
@given(st.lists(FILES, min_size=1, max_size=4))
def test_a_volumes_files_are_always_the_last_written(
    tmp_path_factory: pytest.TempPathFactory, versions: list[dict[str, File]]
) -> None:
    folder = tmp_path_factory.mktemp("volume")
    for files in versions:
        write_atomically(folder, files)
        found = {
            str(path.relative_to(folder)): path.read_bytes()
            for top in folder.iterdir()
            if not top.name.startswith("..")
            for path in ([top] if top.is_file() else top.rglob("*"))
            if path.is_file()
        }
        assert found == {name: file.content for name, file in files.items()}
        # The link `..data` and its target.
        assert len(list(folder.glob("..*"))) == 2


def test_unknown_fields_of_a_pod_are_ignored() -> None:
    manifest = pod("pod", container("busybox", tty=True, imagePullPolicy="Always"), schedulerName="x", hostIPC=False)
    assert to_pod(json.loads(json.dumps(manifest))).spec.containers[0].image == "busybox"
