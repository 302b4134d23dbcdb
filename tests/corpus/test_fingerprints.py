"""The same recording is found again in other encodings, and nothing else is taken for it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from reencodings import OFFSET_SECONDS, REENCODINGS, Clip, cut, gain, mp3

from genreflow.core.genres import GENRES
from genreflow.corpus import fingerprints
from genreflow.corpus.fingerprints import HOP, RATE, VOID, Fingerprints, Match, acoustic_fingerprint
from genreflow.corpus.sources import open_source

CLIPS = ("blues.00000", "classical.00003", "disco.00001", "hiphop.00004", "metal.00002")


@pytest.fixture(scope="module")
def recordings(shared: Path) -> list[Clip]:
    """Ten seconds of five pieces of music."""
    files = [shared / "gtzan-mini" / "genres" / name.split(".")[0] / f"{name}.wav" for name in CLIPS]
    return [cut(soundfile.read(file, dtype="float32"), 10, 20) for file in files]


def matches(clips: list[Clip], folder: Path) -> list[Match]:
    with Fingerprints(folder) as prints:
        for samples, rate in clips:
            prints.add(acoustic_fingerprint(samples, rate))
        return prints.matches()


def pairs(found: list[Match]) -> set[tuple[int, int]]:
    return {(match.first, match.second) for match in found}


@pytest.mark.parametrize("how", REENCODINGS)
def test_a_re_encoded_recording_is_found_and_no_other(
    recordings: list[Clip], tmp_path: Path, how: str
) -> None:
    found = matches(recordings + [REENCODINGS[how](clip) for clip in recordings], tmp_path)
    assert pairs(found) == {(number, number + len(CLIPS)) for number in range(len(CLIPS))}
    assert min(match.similarity for match in found) > 0.85
    offset = OFFSET_SECONDS if "later" in how else 10 / 6 if "middle" in how else 0.0
    for match in found:  # an mp3 encoder's own delay aside
        assert match.offset_seconds == pytest.approx(offset, abs=HOP / RATE + 0.03)


def test_excerpts_that_do_not_overlap_are_not_the_same_nor_are_other_pieces(
    recordings: list[Clip], tmp_path: Path
) -> None:
    assert matches([cut(clip, start, start + 5) for clip in recordings for start in (0, 5)], tmp_path) == []


def test_short_clips_are_found_if_they_have_most_of_it_in_common(
    recordings: list[Clip], tmp_path: Path
) -> None:
    short = [cut(clip, 0, 2.5) for clip in recordings]
    found = matches(short + [mp3(cut(clip, 0.2, 2.5)) for clip in recordings], tmp_path)
    assert pairs(found) == {(number, number + len(CLIPS)) for number in range(len(CLIPS))}
    assert matches([*short, *(cut(clip, 1.5, 4) for clip in recordings)], tmp_path) == []


def test_a_loop_is_matched_but_not_other_music_over_the_same_beat(
    recordings: list[Clip], tmp_path: Path
) -> None:
    samples, rate = cut(recordings[3], 0, 2)
    loop = np.tile(samples, 5), rate
    assert pairs(matches([loop, mp3(cut(loop, 0.2))], tmp_path)) == {(0, 1)}
    mixed = [(0.5 * loop[0] + clip[0], rate) for clip in (recordings[0], recordings[2])]
    assert matches(mixed, tmp_path) == []


def test_silence_and_held_tones_have_no_fingerprint_bits(recordings: list[Clip], tmp_path: Path) -> None:
    rate = recordings[0][1]
    time = np.arange(5 * rate) / rate
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    for still in (np.zeros_like(tone), tone, np.full_like(tone, 0.5)):
        actual = acoustic_fingerprint(still, rate)
        # where a constant begins and ends is a step of the resampler's, no music
        assert (actual[10:-10] == VOID).all()
    padded = [(np.concatenate([clip[0], np.zeros(20 * rate, np.float32)]), rate) for clip in recordings]
    assert matches(padded, tmp_path) == []


def test_level_changes_hardly_a_bit(recordings: list[Clip]) -> None:
    for samples, rate in recordings:
        quiet, _ = gain((samples, rate), -20)
        changed = acoustic_fingerprint(samples, rate) ^ acoustic_fingerprint(quiet, rate)
        assert np.bitwise_count(changed).mean() / 32 < 0.01


def test_a_share_of_the_frames_is_enough(
    recordings: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = recordings + [mp3(cut(clip, 0.2)) for clip in recordings]
    whole = matches(versions, tmp_path)
    monkeypatch.setattr(fingerprints, "INDEX_FRAMES", 400)  # of 2000
    assert pairs(matches(versions, tmp_path)) == pairs(whole) != set()


def test_many_versions_of_a_recording_are_all_connected(recordings: list[Clip], tmp_path: Path) -> None:
    samples, rate = recordings[0]
    versions = [(samples[37 * number :], rate) for number in range(30)]
    found = pairs(matches(versions, tmp_path))
    joined = {0}
    for _ in versions:
        joined |= {clip for pair in found if joined & set(pair) for clip in pair}
    assert joined == set(range(30))


def test_clips_that_are_too_short_have_no_fingerprint(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert len(acoustic_fingerprint(noise[: RATE // 3], RATE)) == 0
    assert len(acoustic_fingerprint(noise[:0], RATE)) == 0
    assert matches([(noise[: RATE // 3], RATE)] * 2, tmp_path) == []
    assert matches([], tmp_path) == []


def test_the_synthetic_corpus_has_no_near_duplicates(tmp_path: Path) -> None:
    items = open_source("synthetic?clips=2&seconds=2", GENRES).items()
    clips = [soundfile.read(item.open(), dtype="float32") for item in items]
    assert len(clips) == 20
    assert matches(clips, tmp_path) == []
