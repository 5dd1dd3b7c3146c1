from pathlib import Path

import pytest

from model_store import ModelStore, open_store
from tests.model_store.places import FolderPlace, Place


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a store: a folder, then a bucket."""
    if request.param == "folder":
        return FolderPlace(tmp_path / "store")
    made: Place = request.getfixturevalue("bucket")
    return made


@pytest.fixture
def store(place: Place) -> ModelStore:
    return open_store(place.location)
