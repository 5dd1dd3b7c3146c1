"""Fixtures for all tests: an S3 server and a control plane. The cluster is in tests/node, the plugins in tests/run."""

import itertools
import os
from collections.abc import Iterator
from functools import cache

import boto3
import pytest
from botocore.loaders import JSONFileLoader, Loader
from hypothesis import settings

from serving.parent import PARENT
from tests.go_programs import NoProgramError
from tests.kubernetes.binaries import PARTS, command_of
from tests.model_store.places import BucketPlace
from tests.model_store.s3_server import S3Server, serving

pytest_plugins = [
    "tests.node.fixtures",
    *(f"tests.run.{name}" for name in ("ending", "engines", "garbage", "groups", "quick")),
]

# Servers that tests start end with this process, even when it is killed.
os.environ[PARENT] = str(os.getpid())
# Hypothesis tries the same examples in every run, and lets a busy machine take its time for each.
# `--hypothesis-profile=long` tries more and different ones.
settings.register_profile("steady", derandomize=True, print_blob=True, deadline=None)
settings.register_profile("long", max_examples=2000, print_blob=True, deadline=None)
settings.load_profile("steady")
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane_programs() -> None:
    """Build the programs of a Kubernetes control plane with Go, unless they are built. Without Go, skip the test."""
    try:
        for part in PARTS:
            command_of(part)
    except NoProgramError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def boto3_reads_its_files_once() -> Iterator[None]:
    """Each of the clients that tests create would parse 2 MB of JSON and list 400 folders again.

    That takes a tenth of a second.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "list_available_services", staticmethod(cache(Loader().list_available_services)))
        patch.setattr(JSONFileLoader, "load_file", staticmethod(cache(JSONFileLoader().load_file)))
        yield


@pytest.fixture(scope="session")
def running_server() -> Iterator[tuple[S3Server, str]]:
    with serving() as running:
        yield running


@pytest.fixture
def s3(
    running_server: tuple[S3Server, str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    """An S3 server that the environment points to."""
    server, url = running_server
    nowhere = str(tmp_path_factory.getbasetemp() / "absent")
    for name, value in {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.remove_hooks()


@pytest.fixture
def bucket(s3: S3Server) -> BucketPlace:
    """A place for a store, in a bucket of its own."""
    name = f"bucket-{next(_NUMBERS)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return BucketPlace(name)
