"""The corpus and the split that a model was trained on, where a run has left them on this machine."""

from pathlib import Path

from genreflow.core.documents import CorpusDocument, ModelDocument, SplitDocument
from genreflow.core.errors import CorpusError, GenreflowError
from genreflow.corpus.splitting import TABLE, open_corpus
from genreflow.corpus.store import Corpus


def training_corpus(model: ModelDocument, runs: Path) -> Corpus | None:
    """The corpus of the model's training and validation clips; None where it is not here, or not readable.

    Args:
        runs: the folder of local pipeline runs.
    """
    for folder in _folders(runs, CorpusDocument.file_name):
        try:
            if CorpusDocument.read(folder).fingerprint == model.corpus_fingerprint:
                return Corpus.open(folder)
        except GenreflowError:
            continue  # an artifact of another version, or half deleted: another run may have the same
    return None


def held_out_clips(model: ModelDocument, runs: Path) -> tuple[Corpus, list[int]]:
    """The corpus that the model was trained on, and the rows of its test split.

    Raises:
        CorpusError: corpus or split are not on this machine, or the split has no test clips.
    """
    corpus = training_corpus(model, runs)
    split = None if corpus is None else _split(model, runs)
    if corpus is None or split is None:
        raise CorpusError(
            f"The clips that this model was tested on are not among the runs in {runs}: name other clips "
            "with --on SOURCE."
        )
    opened = open_corpus(corpus.folder, split)
    rows = opened.rows("test")
    if not rows:
        raise CorpusError(
            f"The split of this model (protocol {opened.split.protocol}) has no test clips: name other clips "
            "with --on SOURCE."
        )
    return opened, rows


def _split(model: ModelDocument, runs: Path) -> Path | None:
    for folder in _folders(runs, SplitDocument.file_name):
        try:
            # a comparison's candidates have a copy of the document, without the table
            if not (folder / TABLE).is_file():
                continue
            if SplitDocument.read(folder).fingerprint == model.split_fingerprint:
                return folder
        except GenreflowError:
            continue
    return None


def _folders(runs: Path, document: str) -> list[Path]:
    """Artifacts of runs with that document, the newest run first: `<run>/<step>/<artifact>`."""
    return [path.parent for path in sorted(runs.glob(f"*/*/*/{document}"), reverse=True)]
