"""A small corpus that was really ingested, and a classifier that answers by pitch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genreflow.core.documents import InputSpec, ModelDocument
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.splitting import open_corpus
from genreflow.corpus.store import Corpus
from genreflow.inference.classifier import Classifier
from tests.corpora import ingest_and_split, split_of
from tests.sounds import tone, write

RATE = 8_000
GENRES = ("<b>low", "r&b $x$", "high")
"""Names that would break a page or a figure that took them for markup."""
PITCHES = dict(zip(GENRES, (150.0, 500.0, 1400.0), strict=True))
CLIPS = 10
INPUT_SPEC = InputSpec(
    sample_rate=RATE,
    window_seconds=1.0,
    hop_seconds=0.5,
    extend="repeat",
    representation="waveform",
    parameters={"normalise": False},
)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three genres of ten clips of different lengths, one of them twice, and a file that is no audio."""
    root = tmp_path_factory.mktemp("music")
    for genre, pitch in PITCHES.items():
        for number in range(CLIPS):
            samples = tone(2.2 + 0.1 * number, RATE, pitch * (1 + 0.01 * number), level=0.05 * (1 + number))
            write(root / genre / f"{number:05d}.wav", samples, RATE)
    first = (root / "high" / "00000.wav").read_bytes()
    (root / "high" / "copy.wav").write_bytes(first)
    (root / "high" / "page.wav").write_text("<html>not found</html>")
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    settings = CorpusSettings(protocol="grouped", genres=GENRES)
    return ingest_and_split(root, settings, out)


@pytest.fixture(scope="session")
def corpus(corpus_folder: Path) -> Corpus:
    return open_corpus(corpus_folder, split_of(corpus_folder))


def by_pitch(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of windows (n, samples) by how often they cross zero; the highest of r&b are taken for high."""
    crossings = np.abs(np.diff(np.signbit(inputs).astype(int), axis=-1)).sum(-1) / 2
    pitches = crossings * RATE / inputs.shape[-1]
    centres = np.array([150.0, 281.0, 1000.0])
    result: NDArray[np.float32] = (-((np.log(pitches[:, None] / centres)) ** 2) * 4).astype(np.float32)
    return result


@pytest.fixture(scope="session")
def document(corpus: Corpus) -> ModelDocument:
    """A model that says it was trained on the corpus's training split."""
    manifest = corpus.manifest

    def clips(split: str) -> dict[str, str]:
        rows = manifest[manifest["split"] == split]
        return dict(zip(rows["sha256"], rows["duplicate_cluster"], strict=True))

    return ModelDocument(
        family="mfcc_cnn",
        settings={"dropout": 0.3},
        genres=GENRES,
        input_spec=INPUT_SPEC,
        temperature=0.7,
        training={"epochs": 3},
        pretrained=None,
        synthetic=False,
        train_clips=clips("train"),
        validation_clips=clips("validation"),
        corpus_fingerprint=corpus.document.fingerprint,
        features_fingerprint="features",
        protocol="grouped",
        fold=None,
        leaky=False,
        leak_reason=None,
        code_version="test",
        run_id=None,
    )


@pytest.fixture(scope="session")
def classifier(document: ModelDocument) -> Classifier:
    return Classifier(document, by_pitch, "pytorch", "f32")


@pytest.fixture(scope="session")
def answering(document: ModelDocument) -> Callable[..., Classifier]:
    """A classifier with another function from windows to logits."""
    return lambda predict: Classifier(document, predict, "pytorch", "f32")
