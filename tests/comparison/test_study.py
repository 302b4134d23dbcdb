"""The protocol study: what leaks under which protocol, on made rows and on the published table."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from services import CLI
from sounds import tone, write

from genreflow.comparison.study import Table, markdown, measure, open_tables, outer_folds, study
from genreflow.core import home
from genreflow.core.errors import CorpusError, GenreflowError, SettingsError
from genreflow.core.genres import GENRES
from pipelines.study import _seconds

TWO = ("blues", "jazz")
CHUNKS = 5


@pytest.fixture
def leaking() -> Table:
    """Clips that nothing but themselves is like: chunks of a clip agree, genres do not differ."""
    generator = np.random.default_rng(0)
    clips = np.repeat(np.arange(40), CHUNKS)
    features = 10 * generator.standard_normal((40, 6))[clips] + generator.standard_normal((len(clips), 6))
    manifest = pd.DataFrame(
        {
            "clip_id": [f"song-{number}" for number in range(40)],
            "genre": np.where(np.arange(40) % 2, *TWO[::-1]),
            "seconds": 15.0,
            "artist": [f"artist {number // 4}" for number in range(40)],
            "near_duplicate_cluster": [str(number) for number in range(40)],
        }
    )
    return Table(features.astype(np.float32), clips, manifest, TWO, "3 s", "made")


def test_random_chunks_of_a_clip_leak(leaking: Table) -> None:
    leak = measure(leaking, "knn", "none", "chunk-random")
    leak_free = measure(leaking, "knn", "none", "artist")
    assert leak.row_accuracy > 0.95
    assert leak_free.accuracy < 0.75
    assert (leak.clips, leak_free.clips) == (40, 40)


@pytest.mark.parametrize("protocol", ["random-ten-fold", "artist"])
def test_no_clip_is_on_both_sides_and_no_artist_where_artists_are_kept_apart(
    leaking: Table, protocol: str
) -> None:
    artists = leaking.manifest["artist"].to_numpy()[leaking.clips]
    tested = np.zeros(len(leaking.clips), int)
    for train, test in outer_folds(leaking, protocol, seed=1):
        assert not set(leaking.clips[train]) & set(leaking.clips[test])
        assert bool(set(artists[train]) & set(artists[test])) == (protocol != "artist")
        tested += test
    assert (tested == 1).all()


def test_an_interrupted_study_reads_what_was_measured(leaking: Table) -> None:
    class Interrupted(Exception):
        pass

    def stop(result: object) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        study([leaking], ["knn"], ["none"], ["artist"], on_result=stop)
    (kept,) = home.searches_folder().glob("*.json")
    before = kept.stat().st_mtime_ns
    results, notes = study([leaking], ["knn"], ["none"], ["artist", "fault-filtered"])
    assert kept.stat().st_mtime_ns == before
    assert len(results) == 1
    assert notes == [
        "fault-filtered, rows of 3 s: The protocol fault-filtered is a published list of GTZAN's clips, and "
        "these are not GTZAN's. Use --protocol grouped."
    ]
    assert "| knn | 3 s | none |" in markdown(results)


def test_unknown_protocols_and_classifiers_are_named_with_the_known_ones(leaking: Table) -> None:
    with pytest.raises(SettingsError, match="There is no protocol 'fair'; there are chunk-random"):
        study([leaking], protocols=["fair"])
    with pytest.raises(SettingsError, match="There is no classifier 'forest'; there are svm"):
        study([leaking], classifiers=["forest"])


def test_without_artists_to_hold_out_the_artist_protocol_is_refused(leaking: Table) -> None:
    one = Table(
        leaking.features, leaking.clips, leaking.manifest.assign(artist="one"), TWO, "3 s", "one artist"
    )
    with pytest.raises(CorpusError, match="no artist to hold out"):
        outer_folds(one, "artist", 0)


def test_an_svm_on_the_published_table_loses_a_fifth_without_the_leak(shared: Path, tmp_path: Path) -> None:
    # FACTS.md: 75.1 % in random ten-fold cross-validation, 52.4 % on the fault-filtered test split
    (table,) = open_tables(str(shared / "reference/features_30_sec.csv"), GENRES, [30.0], tmp_path)
    random = measure(table, "svm", "none", "random-ten-fold")
    leak_free = measure(table, "svm", "none", "fault-filtered")
    assert (random.clips, leak_free.clips) == (1000, 290)
    assert random.accuracy == pytest.approx(0.751, abs=0.02)
    assert leak_free.accuracy == pytest.approx(0.524, abs=0.04)


def test_the_command_writes_a_table_and_its_figures(shared: Path, tmp_path: Path) -> None:
    source = str(shared / "reference/features_30_sec.csv")
    figures = tmp_path / "figures.json"
    options = ["--classifiers", "decision_tree", "--searches", "none", "--protocols", "chunk-random,artist"]
    done = subprocess.run(
        [*CLI, "study", "--source", source, *options, "-o", str(figures)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| classifier | row | search | artist |")
    (result,) = json.loads(figures.read_text())["results"]
    assert result["clips"] == 948
    low, high = result["accuracy_ci95"]
    assert low < result["accuracy"] < high


def test_a_table_of_paths_and_labels_is_a_source_of_audio(tmp_path: Path) -> None:
    rows = ["path;label"]
    for genre, pitch in (("blues", 200.0), ("jazz", 700.0)):
        for at in range(2):
            write(tmp_path / f"{genre}-{at}.wav", tone(seconds=6.0, pitch=pitch + 40 * at))
            rows.append(f"{genre}-{at}.wav;{genre}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(rows))
    (table,) = open_tables(str(labels), TWO, [3.0], tmp_path / "work")
    assert sorted(table.manifest["genre"]) == ["blues", "blues", "jazz", "jazz"]
    assert len(table.features) == 4 * 2
    assert table.length == "3 s"


def test_another_table_gives_an_error_message_that_says_what_a_table_has_to_have(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("filename,label\nblues.00000.wav,blues\njazz.00000.wav,jazz\n")
    done = subprocess.run(
        [*CLI, "study", "--source", str(labels)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"genreflow: {labels} is no table of descriptors: it has the columns filename, label, and a table of "
        "descriptors has filename, label and those 57 of features_30_sec.csv. Where it names audio files: "
        f"--source '{labels}?path=COLUMN&label=COLUMN'.\n"
    )


def test_an_unknown_option_of_the_command_gives_an_error_message(shared: Path) -> None:
    source = str(shared / "reference/features_30_sec.csv")
    done = subprocess.run(
        [*CLI, "study", "--source", source, "--protocols", "fair"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("genreflow: There is no protocol 'fair'; there are chunk-random")


@pytest.mark.parametrize("lengths", ["nan,3", "3,inf", "0,3", "three"])
def test_lengths_of_rows_are_numbers_of_seconds(lengths: str) -> None:
    with pytest.raises(GenreflowError, match="seconds above 0"):
        _seconds(lengths)
