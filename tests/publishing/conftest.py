"""A registry with three small versions to publish: each loads in another way."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from candidates import model_document, write_corpus, write_evaluation
from corpora import ingest_and_split, split_of
from encoders import PROBE, write_encoder
from model_hub import ModelHub, model_hub
from sounds import genre_folder

from genreflow import packaging, registry
from genreflow.core.genres import GENRES
from genreflow.corpus.settings import CorpusSettings
from genreflow.families import family

STOCK, OWN_CODE, OTHER = "1", "2", "3"
"""Versions: transformers' own HuBERT; a probe of Whisper, with a head of its own; none of transformers."""


@dataclass(frozen=True)
class Registered:
    home: Path
    packaged: dict[str, Path]
    """By version."""


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    root = tmp_path_factory.mktemp("registered")
    music = str(genre_folder(root / "music", 3, GENRES))
    ingest_and_split(music, CorpusSettings(protocol="grouped"), root / "clips")
    training = {"checkpoint_uri": "s3://secret/place", "notes": ["kept in /secret/place"], "epochs": 3}
    write_encoder(root / "1" / "model", "hubert", {}, training=training)
    write_encoder(root / "2" / "model", "whisper", PROBE, synthetic=True)
    write_mfcc_cnn(root / "3" / "model", leaky=True, leak_reason="the same artists on both sides.")
    packaged = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(root / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for version in (STOCK, OWN_CODE, OTHER):
            folder = root / version
            packaging.package(folder / "model", root / "clips", split_of(root / "clips"), folder / "packaged")
            fields: dict[str, Any] = {"synthetic": version == OWN_CODE}
            write_corpus(folder / "corpus", fields)
            seen = {"seen_clips": 290} if version == OWN_CODE else {}
            write_evaluation(folder / "scores", folder / "packaged", 0.81, fields | seen)
            found = registry.register(
                folder / "packaged", folder / "scores", folder / "corpus", split_of(folder / "corpus"), None
            )
            assert found.version == version
            packaged[version] = folder / "packaged"
        registry.set_champion(STOCK, "the first")
    return Registered(root / "home", packaged)


@pytest.fixture
def versions(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The packaged models by version, registered where this test looks."""
    monkeypatch.setenv("GENREFLOW_HOME", str(registered.home))
    return registered.packaged


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as hub:
        yield hub


def metadata(card: str) -> dict[str, Any]:
    """The YAML of a card."""
    return dict(yaml.safe_load(card.split("---")[1]))


def write_mfcc_cnn(folder: Path, **fields: Any) -> None:
    kind = family("mfcc_cnn")
    settings = kind.settings_type()
    document = model_document(
        family="mfcc_cnn",
        settings=settings.model_dump(mode="json"),
        input_spec=kind.input_spec(settings),
        pretrained=None,
        **fields,
    )
    module: Any = kind.build(settings, GENRES, "inputs", 0)
    kind.fit_inputs(module, [torch.from_numpy(np.random.default_rng(0).normal(size=(8, 5, 40, 130)))])
    kind.save(module.eval(), folder)
    document.write(folder)
