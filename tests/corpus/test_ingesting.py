"""Ingest: what lies in a corpus, what goes to quarantine, what is refused; nothing is left half-written."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from corpora import split_of
from memory import PEAK
from sounds import genre_folder, tone, write, write_silent_film

from genreflow.audio import Audio, decode
from genreflow.audio.decode import OUT_OF_PHASE
from genreflow.core.digests import file_digest
from genreflow.core.documents import CorpusDocument, SplitDocument
from genreflow.core.errors import CorpusError
from genreflow.core.progress import PROGRESS_VARIABLE
from genreflow.corpus import splitting
from genreflow.corpus.ingest import (
    _Accepted,
    _decode_and_check,
    _Rejected,
    _store,
    fingerprint,
    ingest,
    resolve,
)
from genreflow.corpus.settings import CorpusSettings
from genreflow.corpus.sources import SourceItem
from genreflow.corpus.splitting import Split
from genreflow.corpus.store import MANIFEST_TYPES, Corpus, quantise

TWO = CorpusSettings(genres=("jazz", "rock"))


def take_in(source: Path, out: Path, settings: CorpusSettings = TWO, workers: int = 2) -> CorpusDocument:
    return ingest(str(source), resolve(str(source), settings.genres), settings.ingest(), out, workers)


def split(corpus: Path, settings: CorpusSettings = TWO) -> tuple[SplitDocument, pd.DataFrame]:
    """Split a corpus; the split's document, and its table by clip."""
    document = splitting.split(corpus, settings.split(), split_of(corpus))
    return document, Split.open(split_of(corpus)).table.set_index("clip_id")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return genre_folder(tmp_path / "music")


def test_a_corpus_holds_every_clip_its_manifest_and_its_document(music: Path, tmp_path: Path) -> None:
    document = take_in(music, tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.document == document
    assert list(corpus.manifest) == list(MANIFEST_TYPES)
    assert corpus.manifest["clip_id"].is_unique
    assert document.clips == 12
    assert split(tmp_path / "corpus")[0].counts == {"train": 8, "validation": 2, "test": 2, "unused": 0}
    assert (document.quarantined, document.duplicate_clusters, document.synthetic) == (0, 0, False)
    assert document.fingerprint == fingerprint(corpus.manifest, document.genres)
    assert document.code_version
    for row in range(len(corpus)):
        source = music / corpus.manifest["source"][row]
        samples, rate = soundfile.read(source, dtype="float32")
        np.testing.assert_allclose(corpus.samples(row), samples, atol=1 / 32_000)
        assert corpus.sample_rate(row) == rate == corpus.manifest["sample_rate"][row]
        assert corpus.manifest["sha256"][row] == file_digest(source)
        assert corpus.manifest["seconds"][row] == pytest.approx(1.2)


def test_what_was_chosen_in_decoding_is_among_the_notes(music: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        sound = tone(1.5, 8_000, 300 if name == "one" else 500)
        soundfile.write(music / "jazz" / f"{name}.wav", np.stack([sound, -sound], axis=1), 8_000)
    document = take_in(music, tmp_path / "corpus")
    assert document.quarantined == 0
    noted = [note for note in document.notes if OUT_OF_PHASE in note]
    assert len(noted) == 1
    assert noted[0].startswith("2 clips (")


def test_levels_are_in_the_manifest(tmp_path: Path) -> None:
    take_in(genre_folder(tmp_path / "music"), tmp_path / "corpus")
    manifest = Corpus.open(tmp_path / "corpus").manifest
    np.testing.assert_allclose(manifest["rms_dbfs"], 20 * np.log10(0.3 / np.sqrt(2)), atol=0.1)
    assert (manifest["peak_dbfs"] > manifest["rms_dbfs"]).all()


def test_the_corpus_does_not_depend_on_the_number_of_workers(music: Path, tmp_path: Path) -> None:
    (music / "rock" / "bad.wav").write_text("<html>")
    one, many = (take_in(music, tmp_path / f"{workers}", workers=workers) for workers in (1, 7))
    assert one == many
    for name in ("clips/data-00000-of-00001.arrow", "corpus.json", "manifest.parquet", "quarantine.parquet"):
        assert file_digest(tmp_path / "1" / name) == file_digest(tmp_path / "7" / name), name


def test_unusable_files_go_to_quarantine_each_with_its_reason_and_ingest_continues(
    music: Path, tmp_path: Path
) -> None:
    rock = music / "rock"
    (rock / "zero.wav").touch()
    (rock / "page.wav").write_text("<!DOCTYPE html><html>404</html>")
    (rock / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    whole = write(rock / "cut.wav", tone(4)).read_bytes()
    (rock / "cut.wav").write_bytes(whole[: len(whole) // 3])
    write(rock / "silence.wav", np.zeros(40_000, np.float32))
    write(rock / "offset.wav", np.full(40_000, 0.5, np.float32))
    samples = tone()
    samples[7] = np.nan
    write(rock / "nan.wav", samples, subtype="FLOAT")
    write(rock / "short.wav", tone(0.2))
    write_silent_film(rock / "film.mp4")
    (rock / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")

    document = take_in(music, tmp_path / "corpus")
    refused = Corpus.open(tmp_path / "corpus").quarantine().set_index("source")
    assert dict(refused["reason"]) == {
        "rock/zero.wav": "empty",
        "rock/page.wav": "not-audio",
        "rock/cover.jpg": "not-audio",
        "rock/cut.wav": "truncated",
        "rock/silence.wav": "silent",
        "rock/offset.wav": "silent",
        "rock/nan.wav": "not-finite",
        "rock/short.wav": "too-short",
        "rock/film.mp4": "no-sound",
        "rock/dangling.wav": "unreadable",
    }
    documented = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert all(f"| `{reason}` |" in documented for reason in refused["reason"])
    assert all(
        detail.startswith(source) and detail.endswith(".") for source, detail in refused["detail"].items()
    )
    assert document.quarantined == 10
    assert document.clips == 12
    assert "10 of 22 files are in quarantine" in document.notes[0]


def test_a_clip_over_the_longest_length_goes_to_quarantine(tmp_path: Path) -> None:
    music = genre_folder(tmp_path / "music")
    write(music / "rock" / "long.wav", tone(3.0))
    take_in(music, tmp_path / "corpus", TWO.model_copy(update={"max_seconds": 2.5}))
    refused = Corpus.open(tmp_path / "corpus").quarantine()
    assert list(zip(refused["source"], refused["reason"], strict=True)) == [("rock/long.wav", "too-long")]


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (192_000, 2), (44_100, 6)])
def test_unusual_rates_and_channels_are_kept_at_their_rate_as_mono(
    music: Path, tmp_path: Path, rate: int, channels: int
) -> None:
    write(music / "rock" / "odd.wav", np.stack([tone(1.5, rate)] * channels, axis=1), rate)
    take_in(music, tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    row = corpus.manifest["clip_id"].tolist().index("rock.odd")
    assert corpus.manifest["channels"][row] == channels
    assert corpus.sample_rate(row) == rate
    np.testing.assert_allclose(corpus.samples(row), tone(1.5, rate), atol=1e-4)


def test_every_format_becomes_a_clip(music: Path, tmp_path: Path) -> None:
    formats = ["wav", "au", "flac", "mp3", "ogg", "opus", "m4a", "webm"]
    for kind in formats:
        write(music / "rock" / f"song.{kind}", tone(rate=48_000), 48_000)
    document = take_in(music, tmp_path / "corpus")
    manifest = Corpus.open(tmp_path / "corpus").manifest
    assert {f"rock.song.{kind}" for kind in formats} <= set(manifest["clip_id"])
    assert document.quarantined == 0


def test_audio_over_full_scale_is_scaled_down_and_noted(music: Path, tmp_path: Path) -> None:
    write(music / "rock" / "hot.wav", tone(level=4.0), subtype="FLOAT")
    document = take_in(music, tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    actual = corpus.samples(corpus.manifest["clip_id"].tolist().index("rock.hot"))
    expected = tone(level=4.0)
    np.testing.assert_allclose(actual, expected / np.abs(expected).max(), atol=1e-4)
    assert any("rock.hot" in note and "scaled down" in note for note in document.notes)


def test_duplicates_by_file_and_by_decoded_audio_are_one_cluster_and_never_straddle(
    music: Path, tmp_path: Path
) -> None:
    first = music / "rock" / "rock.00000.wav"
    (music / "rock" / "copy.wav").write_bytes(first.read_bytes())
    samples, rate = soundfile.read(first, dtype="int16")
    soundfile.write(music / "rock" / "other.flac", samples, rate)
    document = take_in(music, tmp_path / "corpus")
    manifest = Corpus.open(tmp_path / "corpus").manifest.set_index("clip_id")
    names = ["rock.00000", "rock.copy", "rock.other"]
    same, parts = manifest.loc[names], split(tmp_path / "corpus")[1]
    assert document.duplicate_clusters == 1
    assert same["duplicate_cluster"].nunique() == 1
    assert same["sha256"].nunique() == 2
    assert parts.loc[names, "split"].nunique() == 1
    assert manifest["duplicate_cluster"].nunique() == 12


def test_re_encodings_are_one_near_cluster_beside_their_exact_ones_and_never_straddle(
    shared: Path, tmp_path: Path
) -> None:
    for genre in TWO.genres:
        for number in range(6):
            clip = _excerpt(shared, genre, number)
            write(tmp_path / "music" / genre / f"{number}.wav", *clip)
    samples, rate = _excerpt(shared, "rock", 0)
    write(tmp_path / "music" / "rock" / "copy.flac", samples, rate)
    write(tmp_path / "music" / "rock" / "late.mp3", 0.5 * samples[rate // 5 :], rate)
    write(tmp_path / "music" / "jazz" / "stray.ogg", samples, rate)

    document = take_in(tmp_path / "music", tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    manifest = corpus.manifest.set_index("clip_id")
    same = manifest.loc[["rock.0", "rock.copy", "rock.late", "jazz.stray"]]
    assert same["duplicate_cluster"].nunique() == 3
    assert set(same["near_duplicate_cluster"]) == {min(same["duplicate_cluster"])}
    assert split(tmp_path / "corpus")[1].loc[same.index, "split"].nunique() == 1
    others = manifest.drop(same.index)
    assert (others["near_duplicate_cluster"] == others["duplicate_cluster"]).all()
    assert (document.duplicate_clusters, document.near_duplicate_clusters) == (1, 1)
    assert "The same recording under several genres: jazz.stray, rock.0, rock.copy, rock.late." in (
        split(tmp_path / "corpus")[0].notes
    )
    found = corpus.near_duplicates().set_index(["clip_id", "other_clip_id"])
    assert set(found.index) == {
        ("jazz.stray", "rock.0"),
        ("jazz.stray", "rock.late"),
        ("rock.0", "rock.late"),
    }
    assert found.loc[("rock.0", "rock.late"), "offset_seconds"] == pytest.approx(0.2, abs=0.06)
    assert (found["similarity"] > 0.85).all()


def test_the_search_for_near_duplicates_can_be_switched_off(shared: Path, tmp_path: Path) -> None:
    for genre in TWO.genres:
        for number in range(3):
            write(tmp_path / "music" / genre / f"{number}.wav", *_excerpt(shared, genre, number))
    write(tmp_path / "music" / "rock" / "again.ogg", *_excerpt(shared, "rock", 0))
    settings = CorpusSettings(genres=TWO.genres, near_duplicates=False)
    assert take_in(tmp_path / "music", tmp_path / "corpus", settings).near_duplicate_clusters == 0
    corpus = Corpus.open(tmp_path / "corpus")
    assert (corpus.manifest["near_duplicate_cluster"] == corpus.manifest["duplicate_cluster"]).all()
    assert corpus.near_duplicates().empty


def _excerpt(shared: Path, genre: str, number: int) -> tuple[np.ndarray, int]:
    """Four seconds of a piece of music."""
    path = sorted((shared / "gtzan-mini" / "genres" / genre).iterdir())[number]
    return soundfile.read(path, frames=4 * 22_050, dtype="float32")


def test_clips_tagged_with_one_artist_stay_on_one_side(tmp_path: Path) -> None:
    for genre, pitch in (("jazz", 200), ("rock", 500)):
        for clip in range(8):
            with soundfile.SoundFile(
                _made(tmp_path / "music" / genre / f"{clip}.flac"), "w", 8_000, 1
            ) as file:
                file.artist = f"{genre} band {clip // 2}"
                file.write(tone(1.2, 8_000, pitch + clip))
    take_in(tmp_path / "music", tmp_path / "corpus")
    manifest = Corpus.open(tmp_path / "corpus").manifest
    assert manifest["artist"].nunique() == 8
    parts = split(tmp_path / "corpus")[1].join(manifest.set_index("clip_id")["artist"])
    assert (parts.groupby("artist")["split"].nunique() == 1).all()
    assert (parts.groupby("artist_group")["split"].nunique() == 1).all()


def test_the_fingerprint_of_a_corpus_follows_clips_and_labels_and_not_its_split(
    music: Path, tmp_path: Path
) -> None:
    prints = {
        take_in(music, tmp_path / "a").fingerprint,
        take_in(music, tmp_path / "b", CorpusSettings(genres=("rock", "jazz"))).fingerprint,
        take_in(music, tmp_path / "c", CorpusSettings(genres=("jazz", "rock"), seed=1)).fingerprint,
    }
    assert len(prints) == 2
    write(music / "rock" / "rock.00000.wav", tone(1.2, 8_000, 999), 8_000)
    prints.add(take_in(music, tmp_path / "d").fingerprint)
    assert len(prints) == 3
    first, other = (
        split(tmp_path / name, TWO.model_copy(update={"seed": seed})) for name, seed in (("a", 1), ("c", 2))
    )
    assert first[0].fingerprint != other[0].fingerprint
    assert first[0].corpus_fingerprint == other[0].corpus_fingerprint


def test_a_touched_file_gives_the_same_corpus(music: Path, tmp_path: Path) -> None:
    before, listed = take_in(music, tmp_path / "a"), resolve(str(music), TWO.genres)
    (music / "rock" / "rock.00000.wav").touch()
    assert resolve(str(music), TWO.genres) != listed
    assert take_in(music, tmp_path / "b").fingerprint == before.fingerprint


def test_a_genre_that_quarantine_emptied_is_named_with_an_example(music: Path, tmp_path: Path) -> None:
    for path in (music / "rock").iterdir():
        path.write_text("<html>404</html>")
    with pytest.raises(
        CorpusError, match=r"no usable clip of the genre rock.*6 files.*rock/rock\.0.*is text"
    ):
        take_in(music, tmp_path / "corpus")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music"]


def test_a_genre_with_one_usable_clip_is_refused(music: Path, tmp_path: Path) -> None:
    for path in list((music / "rock").iterdir())[1:]:
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match="only one usable clip of the genre rock"):
        take_in(music, tmp_path / "corpus")


def test_a_source_without_one_usable_clip_is_refused(music: Path, tmp_path: Path) -> None:
    for path in music.glob("*/*.wav"):
        path.write_bytes(b"\0" * 100)
    with pytest.raises(CorpusError, match="no usable clip of the genre jazz, rock"):
        take_in(music, tmp_path / "corpus")


def test_a_source_that_changed_since_it_was_listed_is_refused(music: Path, tmp_path: Path) -> None:
    listed = resolve(str(music), TWO.genres)
    write(music / "rock" / "new.wav", tone())
    with pytest.raises(CorpusError, match="changed since"):
        ingest(str(music), listed, TWO, tmp_path / "corpus")


CHANGES: dict[str, Callable[[Path], object]] = {
    "replaced": lambda path: write(path.with_name(".new.wav"), tone(1.3, 8_000, 999), 8_000).rename(path),
    "written over": lambda path: write(path, tone(1.2, 8_000, 999), 8_000),
    "truncated": lambda path: os.truncate(path, 5_000),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("when", ["before it is read", "while it is read"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_after_it_was_listed_is_no_clip(
    change: str, when: str, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = music / "rock" / "rock.00003.wav"

    def decoded(file: FileIO, name: str, *bounds: float) -> Audio:
        hit = name == "rock/rock.00003.wav"
        if hit and when == "before it is read":
            CHANGES[change](spoiled)
        audio = decode(file, name, *bounds)
        if hit and when == "while it is read":
            CHANGES[change](spoiled)
        return audio

    monkeypatch.setattr("genreflow.corpus.ingest.decode", decoded)
    document = take_in(music, tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    assert document.quarantined == 1
    assert corpus.quarantine().loc[0].tolist() == [
        "rock/rock.00003.wav",
        "changed",
        "rock/rock.00003.wav was changed since it was listed; the next run takes what it is then.",
    ]
    assert "rock.00003" not in set(corpus.manifest["clip_id"])


def test_a_file_that_is_gone_when_its_turn_comes_is_unreadable(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "genreflow.corpus.ingest._store",
        lambda *arguments: [(music / "rock" / "rock.00003.wav").unlink(), _store(*arguments)][1],
    )
    take_in(music, tmp_path / "corpus")
    assert Corpus.open(tmp_path / "corpus").quarantine()["reason"].tolist() == ["unreadable"]


def test_while_a_file_is_replaced_repeatedly_the_digest_is_of_the_decoded_bytes(
    tmp_path: Path,
) -> None:
    versions = [write(tmp_path / f"{pitch}.wav", tone(1.2, 8_000, pitch), 8_000) for pitch in (700, 800)]
    contents = itertools.cycle([path.read_bytes() for path in versions])
    actual = {file_digest(path): quantise(decode(path).samples)[0] for path in versions}
    target = write(tmp_path / "song.wav", tone(1.2, 8_000, 700), 8_000)
    stop = threading.Event()

    def replace() -> None:
        while not stop.wait(0.004):
            (tmp_path / "next.wav").write_bytes(next(contents))
            (tmp_path / "next.wav").replace(target)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        item = SourceItem("rock/song.wav", "rock", lambda: target)
        results = [_decode_and_check(item, "rock.song", TWO) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    taken = [result for result in results if isinstance(result, _Accepted)]
    assert taken
    for result in taken:
        np.testing.assert_array_equal(result.pcm, actual[result.row["sha256"]])
    assert {result.reason for result in results if isinstance(result, _Rejected)} <= {"changed"}


def test_a_pipe_and_a_device_among_the_clips_are_not_waited_for(music: Path, tmp_path: Path) -> None:
    os.mkfifo(music / "rock" / "pipe.wav")
    (music / "rock" / "zeros.wav").symlink_to("/dev/zero")
    take_in(music, tmp_path / "corpus")
    refused = Corpus.open(tmp_path / "corpus").quarantine()
    assert refused["source"].tolist() == ["rock/pipe.wav", "rock/zeros.wav"]
    assert set(refused["reason"]) == {"unreadable"}


def test_a_file_whose_decoding_takes_too_long_is_given_up(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genreflow.corpus.ingest.DECODE_TIMEOUT_SECONDS", -1.0)
    with pytest.raises(CorpusError, match="too-slow"):
        take_in(music, tmp_path / "corpus")


def test_a_folder_that_holds_something_is_not_overwritten(music: Path, tmp_path: Path) -> None:
    write(tmp_path / "corpus" / "mine.wav", tone())
    with pytest.raises(CorpusError, match="not empty"):
        take_in(music, tmp_path / "corpus")
    assert (tmp_path / "corpus" / "mine.wav").is_file()


def test_an_interrupted_ingest_leaves_nothing(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genreflow.corpus.ingest.fingerprint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        take_in(music, tmp_path / "corpus")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music"]


def test_progress_is_reported(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_VARIABLE, str(tmp_path / "events"))
    take_in(music, tmp_path / "corpus")
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert {event["step"] for event in events} == {"ingest"}
    assert events[-1]["done"] == events[-1]["total"] == 12


def test_the_synthetic_corpus_is_tagged_and_has_no_artist(tmp_path: Path) -> None:
    source = "synthetic?clips=2&seconds=1"
    document = ingest(source, resolve(source), CorpusSettings().ingest(), tmp_path / "corpus")
    parts, _ = split(tmp_path / "corpus", CorpusSettings())
    assert document.synthetic
    assert (parts.protocol, parts.leaky) == ("grouped", False)
    assert sum(parts.counts.values()) == document.clips == 20
    assert Corpus.open(tmp_path / "corpus").manifest["artist"].isna().all()


def test_gtzan_mini_is_grouped_leaky_with_its_artists_known(shared: Path, tmp_path: Path) -> None:
    settings = CorpusSettings()
    document = take_in(shared / "gtzan-mini", tmp_path / "corpus", settings)
    manifest = Corpus.open(tmp_path / "corpus").manifest
    parts, table = split(tmp_path / "corpus", settings)
    assert sum(parts.counts.values()) == document.clips == 100
    assert (parts.protocol, parts.leaky) == ("grouped", True)
    assert "4 of 10 genres are one artist each (blues, classical, reggae, rock)" in (parts.leak_reason or "")
    assert manifest.set_index("clip_id")["artist"]["blues.00000"] == "John Lee Hooker"
    assert not any("not the bytes" in note for note in document.notes)
    manifest = manifest.join(table["split"], on="clip_id")
    assert (pd.crosstab(manifest["genre"], manifest["split"]) > 0).all(axis=None)


def test_converted_gtzan_is_recognised_by_name_and_noted(shared: Path, tmp_path: Path) -> None:
    for genre in ("blues", "rock"):
        for path in sorted((shared / "gtzan-mini" / "genres" / genre).iterdir())[:3]:
            samples, rate = soundfile.read(path, dtype="float32")
            write(tmp_path / "music" / genre / f"{path.stem}.flac", samples, rate)
    document = take_in(tmp_path / "music", tmp_path / "corpus", CorpusSettings(genres=("blues", "rock")))
    assert any("6 clips have not the bytes of GTZAN's originals" in note for note in document.notes)


@pytest.mark.parametrize("protocol", ["fault-filtered", "artist"])
def test_gtzan_mini_has_no_published_split(shared: Path, tmp_path: Path, protocol: str) -> None:
    settings = CorpusSettings.model_validate({"protocol": protocol})
    take_in(shared / "gtzan-mini", tmp_path / "corpus", settings)
    with pytest.raises(CorpusError, match="leaves no training clip of"):
        split(tmp_path / "corpus", settings)


MEASURE = (
    PEAK
    + """
import sys
from pathlib import Path
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings

def taken(source, out):
    settings = CorpusSettings(genres=("jazz", "rock"))
    ingest(source, resolve(source, settings.genres), settings, Path(out), workers=2)
    return int(peak())

print(taken(*sys.argv[1:]))
"""
)


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    def noise(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).normal(0, 0.1, 22_050 * 20).astype(np.float32)

    clip = write(tmp_path / "clip.wav", noise(0))
    for name, clips in (("few", 48), ("many", 192)):  # 96 × 0.9 MB, and four times as much
        for genre in ("jazz", "rock"):
            folder = tmp_path / name / genre
            folder.mkdir(parents=True)
            for number in range(clips):
                (folder / f"{number}.wav").symlink_to(clip)
                if number < 3:  # some recordings of their own, so that there is something to split
                    (folder / f"{number}.wav").unlink()
                    seed = number if genre == "jazz" else 10 + number
                    write(folder / f"{number}.wav", noise(1 + seed))
    peaks = []
    for name in ("few", "many"):
        argv = [sys.executable, "-c", MEASURE, str(tmp_path / name), str(tmp_path / f"{name}-corpus")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    few, many = peaks
    assert many - few < 30, f"{few} MiB for 96 clips, {many} MiB for 384"


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
