"""Tables of descriptors without audio: what is read, and what is refused in a sentence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genreflow.core.errors import CorpusError
from genreflow.core.genres import GENRES
from genreflow.corpus.descriptor_table import read_descriptor_table
from genreflow.corpus.sources import open_source
from genreflow.features.descriptors import NAMES

TWO = ("blues", "jazz")


def table(folder: Path, **changes: object) -> Path:
    """Four clips of two genres; the last two are copies. A change is a column's values."""
    values = np.random.default_rng(0).random((4, len(NAMES)))
    values[3] = values[2]
    rows = pd.DataFrame(values, columns=list(NAMES))
    rows.insert(0, "filename", ["blues.00000.wav", "blues.00001.wav", "jazz.00000.wav", "jazz.00001.wav"])
    rows.insert(1, "length", 661_500)
    rows["label"] = ["blues", "blues", "jazz", "Jazz "]
    for name, column in changes.items():
        rows[name] = column
    rows.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_a_table_is_read_with_artists_seconds_and_copies(tmp_path: Path) -> None:
    manifest, values = read_descriptor_table(table(tmp_path), TWO, NAMES)
    assert manifest["clip_id"].tolist() == ["blues.00000", "blues.00001", "jazz.00000", "jazz.00001"]
    assert manifest["genre"].tolist() == ["blues", "blues", "jazz", "jazz"]
    assert manifest["seconds"].unique().tolist() == [30.0]
    assert manifest["artist"].iloc[0] == "John Lee Hooker"
    assert manifest["near_duplicate_cluster"].nunique() == 3
    assert values.shape == (4, 57)


def test_the_published_table_is_read(shared: Path) -> None:
    manifest, values = read_descriptor_table(shared / "reference/features_30_sec.csv", GENRES, NAMES)
    assert (len(manifest), values.shape) == (1000, (1000, 57))
    assert manifest["genre"].value_counts().unique().tolist() == [100]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tempo": [1, 2, np.nan, 4]}, "line 4: tempo is no finite number; 1 of 4 rows have such values"),
        ({"tempo": [1, "fast", 3, 4]}, "line 3: tempo is no finite number"),
        ({"tempo": [1, np.inf, 3, 4]}, "line 3: tempo is no finite number"),
        ({"label": ["blues", "blues", "jazz", "polka"]}, "has the labels polka, which are not among"),
        ({"label": ["blues", "blues", "jazz", ""]}, "which are not among the genres"),
        ({"label": ["blues", "blues", "blues", "jazz"]}, "has only one row of the genre jazz"),
        (
            {"filename": ["a.0.wav", "a.0.wav", "b.0.wav", "b.1.wav"]},
            "has a.0 in 2 rows: a row is a whole clip",
        ),
    ],
)
def test_a_table_that_cannot_be_used_gives_an_error_message(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(CorpusError, match=sentence):
        read_descriptor_table(table(tmp_path, **changes), TWO, NAMES)


def test_missing_columns_files_and_rows_give_error_messages(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="There is no table"):
        read_descriptor_table(tmp_path / "none.csv", TWO, NAMES)
    path = table(tmp_path)
    rows = pd.read_csv(path)
    rows.drop(columns=["tempo", "mfcc3_var"]).to_csv(path, index=False)
    with pytest.raises(CorpusError, match="lacks the columns tempo, mfcc3_var"):
        read_descriptor_table(path, TWO, NAMES)
    rows.head(0).to_csv(path, index=False)
    with pytest.raises(CorpusError, match="has no rows"):
        read_descriptor_table(path, TWO, NAMES)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorpusError, match="is not readable as CSV in UTF-8"):
        read_descriptor_table(path, TWO, NAMES)


def test_a_table_of_descriptors_is_no_source_of_audio_and_the_sentence_names_the_study(
    tmp_path: Path,
) -> None:
    path = table(tmp_path)
    with pytest.raises(CorpusError, match=r"without audio: .* genreflow study --source"):
        open_source(str(path), TWO)
