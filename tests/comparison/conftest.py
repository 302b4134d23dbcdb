"""A comparison of two small families on tones, made by the steps themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from corpora import split_of, write_corpus
from sounds import tone

from genreflow import steps
from genreflow.comparison.leaderboard import ComparisonDocument
from genreflow.families import family
from genreflow.steps.compare import Promoted

GENRES = ("blues", "jazz", "rock")


@dataclass(frozen=True)
class Compared:
    """The artifacts of a comparison."""

    home: Path
    corpus: Path
    split: Path
    candidates: dict[str, Path]
    out: Path
    document: ComparisonDocument
    promoted: Promoted


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    """`mfcc_cnn`, barely trained, and `linear` on descriptors, the latter with folds as well."""
    folder = tmp_path_factory.mktemp("compared")
    clips = [
        (genre, split, tone(seconds=6.4, pitch=200.0 * 2**number + 7 * at), 22_050)
        for number, genre in enumerate(GENRES)
        for at, split in enumerate(["train"] * 4 + ["validation"] * 2 + ["test"] * 2)
    ]
    corpus = write_corpus(folder / "corpus", clips, GENRES)
    split = split_of(corpus)
    settings = {
        "mfcc_cnn": {"family": "mfcc_cnn", "model": {}, "training": {"epochs": 1, "device": "cpu"}},
        "linear": {"family": "linear", "model": {"backbone": "descriptors"}, "training": {}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENREFLOW_HOME", str(folder / "home"))
        candidates = {}
        for name, given in settings.items():
            kind = family(str(given["family"]))
            chosen = kind.settings(given["model"])
            text = kind.representation(chosen).canonical()
            features = folder / name / "features"
            steps.extract_features(corpus, text, features)
            candidates[name] = folder / name / "candidate"
            steps.train_candidate(
                corpus,
                features,
                split,
                candidates[name],
                {"name": name, **given},
                kind.backbone_digest(chosen) or "",
                {},
                folds=2,
            )
        out = folder / "out"
        document, promoted = steps.compare(list(candidates.values()), corpus, out)
        yield Compared(folder / "home", corpus, split, candidates, out, document, promoted)
