"""The synthetic corpus: the same every time, ten styles one can tell apart, varied, hard cases left hard."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import spectrogram
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genreflow.core.digests import file_digest
from genreflow.core.errors import CorpusError
from genreflow.core.genres import GENRES
from genreflow.corpus.synthetic import GENERATOR_VERSION, perform, render, synthesise
from genreflow.corpus.synthetic.performance import Performance
from genreflow.corpus.synthetic.styles import NEIGHBOURS, STYLES

CLIPS = 18
SECONDS = 6.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthesise(folder, CLIPS, SECONDS, seed=7)
    return folder


@pytest.fixture(scope="module")
def document(corpus: Path) -> dict:
    return json.loads((corpus / "synthetic.json").read_text())


def descriptors(samples: np.ndarray, rate: int) -> np.ndarray:
    """Thirty coarse spectral bands: mean, deviation and mean change of their levels in dB, (90,)."""
    bins, _, power = spectrogram(samples, rate, nperseg=1024, noverlap=512)
    edges = np.geomspace(40, rate / 2, 31)
    bands = np.stack(
        [power[(bins >= low) & (bins <= max(high, low + 22))].sum(0) for low, high in pairwise(edges)]
    )
    levels = 10 * np.log10(bands + 1e-10)
    return np.concatenate([levels.mean(1), levels.std(1), np.abs(np.diff(levels, axis=1)).mean(1)])


def test_the_same_seed_gives_the_same_bytes_in_one_process_or_two(corpus: Path, tmp_path: Path) -> None:
    synthesise(tmp_path, 2, SECONDS, seed=7)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.wav"))
    assert len(files) == 2 * len(GENRES)
    assert [file_digest(tmp_path / file) for file in files] == [file_digest(corpus / file) for file in files]


def test_another_seed_gives_other_music(corpus: Path) -> None:
    first, _ = render("jazz", 0, 7, SECONDS)
    other, _ = render("jazz", 0, 8, SECONDS)
    assert np.abs(np.corrcoef(first, other)[0, 1]) < 0.5


def test_a_rendered_clip_is_what_lies_in_the_file(corpus: Path) -> None:
    samples, rate = render("reggae", 3, 7, SECONDS)
    written, written_rate = soundfile.read(corpus / "genres/reggae/reggae.00003.wav", dtype="float32")
    assert rate == written_rate
    np.testing.assert_allclose(samples, written, atol=1 / 32000)


def test_files_are_mono_16_bit_at_22050_hz_and_of_the_requested_length(corpus: Path) -> None:
    for genre in GENRES:
        facts = soundfile.info(corpus / f"genres/{genre}/{genre}.00000.wav")
        assert (facts.samplerate, facts.channels, facts.subtype) == (22_050, 1, "PCM_16")
        assert facts.frames == SECONDS * 22_050


def test_every_clip_is_audible_and_none_clips(corpus: Path) -> None:
    for file in corpus.rglob("*.wav"):
        samples, rate = soundfile.read(file)
        level = 20 * np.log10(np.sqrt(np.mean(samples**2)))
        assert -40 < level < -6, file.name
        assert np.abs(samples).max() < 0.96, file.name
        assert abs(samples.mean()) < 0.01, file.name
        seconds = samples[: int(SECONDS) * rate].reshape(int(SECONDS), rate)
        assert np.sqrt(np.mean(seconds**2, axis=1)).max() > 10 * 10 ** (-55 / 20), file.name


def test_no_two_clips_are_alike(corpus: Path) -> None:
    digests = {file_digest(file) for file in corpus.rglob("*.wav")}
    assert len(digests) == CLIPS * len(GENRES)


def test_the_document_matches_the_files_beside_it(corpus: Path, document: dict) -> None:
    assert document["synthetic"] is True
    assert document["generator_version"] == GENERATOR_VERSION
    assert (document["seed"], document["clips_per_genre"], document["seconds"]) == (7, CLIPS, SECONDS)
    assert sorted(clip["file"] for clip in document["clips"]) == sorted(
        path.relative_to(corpus).as_posix() for path in corpus.rglob("*.wav")
    )
    for clip in document["clips"]:
        assert clip["file"].startswith(f"genres/{clip['genre']}/")
        assert clip["hard"] == bool(clip["borrowed_parts"]) == (clip["borrowed_from"] is not None)
        assert set(clip["borrowed_parts"]) <= set(clip["parts"]) == set(clip["levels_db"])
        samples, _ = soundfile.read(corpus / clip["file"])
        level = 20 * np.log10(np.sqrt(np.mean(samples**2)))
        # The peak may hold a clip lower than aimed at; the noise floor adds next to nothing.
        assert level < clip["rms_dbfs"] + 1.0


@pytest.mark.parametrize("genre", GENRES)
def test_styles_vary_within_a_genre(genre: str, document: dict) -> None:
    clips = [clip for clip in document["clips"] if clip["genre"] == genre and not clip["hard"]]
    tempi = [clip["tempo_bpm"] for clip in clips]
    assert max(tempi) / min(tempi) > 1.1
    assert len({clip["key"] for clip in clips}) >= 5
    assert len({json.dumps(clip["parts"], sort_keys=True) for clip in clips}) >= 6
    assert max(clip["rms_dbfs"] for clip in clips) - min(clip["rms_dbfs"] for clip in clips) > 3


def test_hard_cases_exist_and_are_the_smaller_part(document: dict) -> None:
    hard = [clip for clip in document["clips"] if clip["hard"]]
    assert document["hard_clips"] == len(hard)
    assert 0.04 < len(hard) / len(document["clips"]) < 0.25
    assert {"rock", "metal"} & {clip["borrowed_from"] for clip in hard}


def test_parts_of_a_band_may_be_missing(document: dict) -> None:
    assert any("drums" not in clip["parts"] for clip in document["clips"] if clip["genre"] == "country")
    assert all(
        "drums" not in clip["parts"]
        for clip in document["clips"]
        if clip["genre"] == "classical" and not clip["hard"]
    )


def test_a_plain_baseline_separates_the_styles_but_not_perfectly(corpus: Path) -> None:
    files = sorted(corpus.rglob("*.wav"))
    table = np.stack([descriptors(*soundfile.read(file)) for file in files])
    labels = np.array([GENRES.index(file.parent.name) for file in files])
    test = np.arange(len(files)) % 3 == 0
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    accuracy = model.fit(table[~test], labels[~test]).score(table[test], labels[test])
    assert 0.55 < accuracy < 0.99


@pytest.mark.parametrize("genre", GENRES)
def test_every_player_can_play_in_every_neighbouring_style(genre: str) -> None:
    for neighbour in NEIGHBOURS[genre]:
        bands = (STYLES[genre], STYLES[neighbour])
        for scale, progression in (*bands[0].harmony, *bands[1].harmony):
            for player in {player for band in bands for players in band.parts.values() for player in players}:
                take = Performance(np.random.default_rng(1), 3.0, 150.0, 4, scale, progression)
                assert player(take)
                assert take.tracks, player.__name__
                assert all(np.isfinite(line).all() for line in take.tracks.values()), player.__name__


def test_an_unknown_style_is_named() -> None:
    with pytest.raises(CorpusError, match="no synthetic style 'polka'"):
        render("polka", 0, 0, SECONDS)


def test_too_short_and_empty_corpora_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no music"):
        render("rock", 0, 0, 0.1)
    with pytest.raises(CorpusError, match="1 or more"):
        synthesise(tmp_path, 0, SECONDS, 0)


@pytest.mark.parametrize("seconds", [1.0, 2.5, 31.0])
def test_any_length_can_be_played(seconds: float) -> None:
    for genre in GENRES:
        samples, _ = perform(genre, 11, 3, seconds)
        assert samples.shape == (round(seconds * 22_050),)
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() > 0.005
