"""Finding, listing and fetching versions."""

import shutil
from pathlib import Path

import pytest
from candidates import Populated
from mlflow import MlflowClient

import genreflow
from genreflow import registry
from genreflow.core import home
from genreflow.core.digests import file_digest
from genreflow.core.errors import ModelError, RegistryError


def stored(home_folder: Path, digest: str) -> Path:
    """Where the store keeps the packaged folder of that digest."""
    (found,) = (
        path.parent
        for path in (home_folder / "mlartifacts").rglob("packaged/packaged.json")
        if digest in path.read_text()
    )
    return found


def test_an_empty_registry_says_so() -> None:
    assert registry.versions() == []
    assert registry.champion() is None
    with pytest.raises(RegistryError, match="registry is empty"):
        registry.fetch("champion")


def test_versions_are_listed_newest_first_with_figures_and_aliases(populated: Populated) -> None:
    registry.set_champion("2", "because")
    versions = registry.versions()
    assert [version.version for version in versions] == ["3", "2", "1"]
    assert [version.aliases for version in versions] == [(), ("champion",), ()]
    assert [version.metrics["accuracy"] for version in versions] == pytest.approx([0.9, 0.8, 0.7])
    assert versions[0].to_dict()["tags"]["digest"] == populated.candidates[2].digest
    assert versions[0].created.endswith("+00:00")


def test_an_unknown_alias_or_version_names_what_there_is(populated: Populated) -> None:
    registry.set_champion("2", "because")
    for name in ("7", "challenger", "latest"):
        with pytest.raises(RegistryError, match=rf"'{name}'.*1, 2, 3.*champion \(version 2\)"):
            registry.fetch(name)


def test_a_missing_champion_is_reported_with_what_there_is(populated: Populated) -> None:
    with pytest.raises(RegistryError, match=r"'champion'.*versions 1, 2, 3, and no alias"):
        registry.fetch("champion")


def test_fetching_brings_the_packaged_model_once_and_it_classifies(
    populated: Populated, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.set_champion("3", "because")
    folder = registry.fetch("champion")
    assert folder == home.models_folder() / populated.candidates[2].digest
    assert genreflow.load("champion").document.family == "encoder"
    before = (folder / "packaged.json").stat().st_mtime_ns
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda **_: pytest.fail("fetched twice"))
    assert registry.fetch("3") == folder
    assert (folder / "packaged.json").stat().st_mtime_ns == before
    assert [path.name for path in home.models_folder().iterdir()] == [folder.name]


def test_a_damaged_copy_is_fetched_again(populated: Populated) -> None:
    folder = registry.fetch("3")
    (folder / "openvino" / "model.bin").write_bytes(b"damaged")
    assert registry.fetch("3") == folder
    assert (folder / "openvino" / "model.bin").stat().st_size > 1000


def test_a_model_altered_in_the_store_is_refused_and_not_kept(
    populated: Populated, three_versions: tuple[Path, Populated], tmp_path: Path
) -> None:
    weights = stored(three_versions[0], populated.candidates[1].digest) / "openvino" / "model.bin"
    shutil.copy(weights, tmp_path / "kept")
    weights.write_bytes(b"altered")
    try:
        with pytest.raises(RegistryError, match="Version 2 is not what was registered"):
            registry.fetch("2")
    finally:
        shutil.copy(tmp_path / "kept", weights)
    assert list(home.models_folder().iterdir()) == []


def test_a_document_altered_in_the_store_is_refused(
    populated: Populated, three_versions: tuple[Path, Populated]
) -> None:
    document = stored(three_versions[0], populated.candidates[1].digest) / "packaged.json"
    before = document.read_text()
    document.write_text(before.replace('"protocol": "fault-filtered"', '"protocol": "artist"'))
    try:
        with pytest.raises(RegistryError, match=r"Version 2 .* packaged\.json was altered"):
            registry.fetch("2")
    finally:
        document.write_text(before)
    assert registry.fetch("2").is_dir()


def test_a_document_of_another_schema_is_reported_as_such_and_the_versions_are_still_listed(
    populated: Populated, three_versions: tuple[Path, Populated]
) -> None:
    document = stored(three_versions[0], populated.candidates[1].digest) / "packaged.json"
    before = document.read_text()
    document.write_text(before.replace('"processor":', '"cpu":'))
    client = MlflowClient(home.tracking_uri())
    client.set_model_version_tag(registry.MODEL_NAME, "2", "packaged_sha256", file_digest(document))
    try:
        with pytest.raises(ModelError, match="made by another version of genreflow") as reported:
            registry.fetch("2")
    finally:
        document.write_text(before)
    assert "\n" not in str(reported.value)
    assert [version.version for version in registry.versions()] == ["3", "2", "1"]


def test_a_version_that_others_registered_is_refused_with_an_error_message(populated: Populated) -> None:
    client = MlflowClient(home.tracking_uri())
    client.delete_model_version_tag(registry.MODEL_NAME, "1", "digest")
    with pytest.raises(RegistryError, match="not registered by genreflow"):
        registry.fetch("1")
