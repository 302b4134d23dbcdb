"""Distortions, and a model's accuracy under them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pitch_model import GENRES, RATE, classifier, melody, write_music

from genreflow.audio import distortions
from genreflow.comparison import robustness
from genreflow.core.errors import CorpusError, GenreflowError
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import IngestSettings
from genreflow.corpus.store import Corpus
from genreflow.inference.classifier import Classifier

CLIPS = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("music")
    music = write_music(root / "music", CLIPS)
    ingest(str(music), resolve(str(music), GENRES), IngestSettings(genres=GENRES), root / "corpus")
    return Corpus.open(root / "corpus")


def band_levels(samples: NDArray[np.float32], rate: int, low: float, high: float) -> float:
    """Share of the power between two frequencies."""
    power = np.square(np.abs(np.fft.rfft(samples)))
    hertz = np.fft.rfftfreq(len(samples), 1 / rate)
    return float(power[(hertz >= low) & (hertz < high)].sum() / power.sum())


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("kbit", distortions.MP3_KBIT)
def test_an_mp3_has_the_length_and_the_music_of_the_original(rate: int, kbit: int) -> None:
    time = np.arange(2 * rate) / rate
    samples = (0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 880 * time)).astype(np.float32)
    coded = distortions.mp3(samples, rate, kbit)
    assert abs(len(coded) - len(samples)) < 0.2 * rate
    assert band_levels(coded, rate, 400, 1000) > 0.98
    assert not np.array_equal(coded[: len(samples)], samples)


def test_fewer_kilobits_are_further_from_the_original() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 22_050 * 2).astype(np.float32)
    high = [band_levels(distortions.mp3(noise, 22_050, kbit), 22_050, 9_000, 11_025) for kbit in (128, 32)]
    assert high[1] < 0.1 * high[0]


@pytest.mark.parametrize("snr", distortions.NOISE_SNR_DB)
def test_noise_lies_below_the_music_by_its_ratio(snr: int) -> None:
    samples = melody("middle", 0)
    noise = distortions.add_noise(samples, RATE, np.random.default_rng(0), snr) - samples
    ratio = 10 * np.log10(np.mean(samples.astype(float) ** 2) / np.mean(noise.astype(float) ** 2))
    assert abs(ratio - snr) < 0.1


def test_the_other_distortions_are_what_they_are_named() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 2).astype(np.float32)
    narrow = distortions.telephone(noise, RATE)
    assert len(narrow) == len(noise)
    assert band_levels(narrow, RATE, 300, 3_400) > 0.97
    assert len(distortions.change_speed(noise, RATE, 1.04)) == round(len(noise) / 1.04)
    assert np.allclose(distortions.gain(noise, RATE, -20), noise / 10)
    clipped = distortions.clip(noise, RATE, 12)
    assert np.abs(clipped).max() == 1
    assert 0.001 < np.mean(np.abs(clipped) == 1) < 0.5
    assert len(distortions.middle(noise, RATE, 0.5)) == RATE // 2
    assert len(distortions.middle(noise, RATE, 5.0)) == len(noise)
    assert not distortions.clip(np.zeros(8, np.float32), RATE, 6).any()


def test_every_requested_kind_is_measured() -> None:
    kinds = {each.kind for each in distortions.DISTORTIONS}
    assert kinds == {"mp3", "noise", "telephone band", "speed", "gain", "clipping", "truncation"}
    names = [each.name for each in distortions.DISTORTIONS]
    assert len(set(names)) == len(names)


def test_scores_under_distortions_are_of_the_same_clips_and_repeatable(corpus: Corpus) -> None:
    rows = corpus.manifest.index.tolist()
    found = robustness.robustness(classifier(), corpus, rows)
    assert found == robustness.robustness(classifier(), corpus, rows)
    assert found.clips == found.of_clips == len(rows)
    assert found.clean.accuracy == 1.0
    assert len(found.conditions) == len(distortions.DISTORTIONS)
    by_name = {each.name: each for each in found.conditions}
    # zero crossings do not depend on the level, and are those of the noise where it is loud
    assert by_name["gain -30 dB"].equal_decisions == 1.0
    loud = by_name["white noise, SNR 0 dB"]
    assert loud.accuracy < 0.7
    assert loud.change == pytest.approx(loud.accuracy - 1)
    assert loud.change_ci95[1] < 0


def test_clips_of_one_recording_make_no_interval_narrower() -> None:
    """Of ten recordings two are lost under a distortion; then the same, each clip being there three times."""
    truth = np.zeros(10, np.int64)
    clean = np.tile([0.9, 0.1], (10, 1))
    distorted = np.where(np.arange(10)[:, None] < 2, clean[:, ::-1], clean)
    names = [f"recording {number}" for number in range(10)]
    once = robustness._condition("noise", "noise", truth, names, clean, distorted)
    thrice = robustness._condition(
        "noise",
        "noise",
        truth.repeat(3),
        np.repeat(names, 3).tolist(),
        clean.repeat(3, 0),
        distorted.repeat(3, 0),
    )
    assert once.change == thrice.change == pytest.approx(-0.2)
    assert thrice.accuracy_ci95 == pytest.approx(once.accuracy_ci95)
    assert thrice.change_ci95 == pytest.approx(once.change_ci95)


def test_another_seed_is_other_noise_and_other_clips_change_nothing(corpus: Corpus) -> None:
    noisy = [each for each in distortions.DISTORTIONS if each.kind == "noise"]
    rows = corpus.manifest.index.tolist()
    one, other = (
        robustness.robustness(classifier(), corpus, rows, seed=seed, distortions=noisy) for seed in (1, 2)
    )
    assert [each.mean_confidence for each in one.conditions] != [
        each.mean_confidence for each in other.conditions
    ]
    alone = [robustness.robustness(classifier(), corpus, [row], seed=1, distortions=noisy) for row in rows]
    mean = np.mean([each.conditions[-1].mean_confidence for each in alone])
    assert mean == pytest.approx(one.conditions[-1].mean_confidence)


def test_of_many_clips_some_are_drawn_in_the_proportions_of_their_genres(corpus: Corpus) -> None:
    rows = corpus.manifest.index.tolist()
    found = robustness.robustness(classifier(), corpus, rows, most=3, distortions=[])
    assert (found.clips, found.of_clips) == (3, len(rows))
    drawn = robustness._drawn(corpus, rows, 3, seed=0)
    assert sorted(corpus.manifest["genre"].iloc[drawn]) == sorted(GENRES)


def test_no_clips_and_numbers_that_are_none_give_error_messages(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="no clips"):
        robustness.robustness(classifier(), corpus, [])
    broken: Callable[..., NDArray[np.float32]] = lambda inputs: np.full((len(inputs), 3), np.nan, np.float32)  # noqa: E731
    diverged = Classifier(classifier().document, broken, "openvino", "f32")
    with pytest.raises(GenreflowError, match="no numbers"):
        robustness.robustness(diverged, corpus, [0], distortions=[])


def test_the_figure_and_the_page_show_every_condition(corpus: Corpus, tmp_path: Path) -> None:
    from genreflow.comparison.evaluation_page import robustness_section, write_page

    found = robustness.robustness(classifier(), corpus, [0, 1, 2])
    (axes,) = robustness.figure(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        robustness.CLEAN,
        *(each.name for each in found.conditions),
    ]
    named = found.model_copy(update={"source": "<b>$x$"})
    write_page("<i>model", [robustness_section(named, "<i>name")], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<i>" not in page
    assert "&lt;b&gt;$x$" in page
    for each in found.conditions:
        assert each.name in page
    assert 'src="http' not in page
