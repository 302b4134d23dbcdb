"""What is not to be relied on: low confidence, and what is no music."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from memory import PEAK
from numpy.typing import NDArray
from sounds import tone

from genreflow.audio import decode
from genreflow.corpus.synthetic import synthesise
from genreflow.inference.reliability import no_music, unsure_reason

RATE = 16_000


def noise(seconds: float, colour: float = 0.0) -> NDArray[np.float32]:
    """Gaussian noise whose power falls with the frequency to the power of `colour`: 0 white, 1 pink."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(size=count))
    shaped = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** (colour / 2), count)
    return (0.1 * shaped / np.abs(shaped).max()).astype(np.float32)


@pytest.mark.parametrize("seconds", [1.0, 30.0])
def test_silence_noise_and_a_tone_are_recognised_from_the_sound(seconds: float) -> None:
    assert no_music(np.zeros(round(seconds * RATE), np.float32)) == "silence"
    assert no_music(np.full(round(seconds * RATE), 0.5, np.float32)) == "silence", "a constant offset"
    assert no_music(noise(seconds)) == "noise"
    assert no_music(noise(seconds, 1.0)) == "noise"
    assert no_music(tone(seconds, RATE)) == "a steady tone"


def test_the_synthetic_corpus_is_music(tmp_path: Path) -> None:
    synthesise(tmp_path, 1, 4.0, 3)
    found = {path.name: no_music(decode(path).samples) for path in tmp_path.rglob("*.wav")}
    assert len(found) == 10
    assert set(found.values()) == {None}


def test_no_clip_of_gtzan_is_classed_as_silence_noise_or_a_tone(shared: Path) -> None:
    clips = sorted((shared / "gtzan-mini").rglob("*.wav"))[::10]
    assert len(clips) >= 10
    assert {no_music(decode(clip).samples) for clip in clips} == {None}


def test_low_confidence_is_unsure_and_says_so() -> None:
    music = noise(2.0) * np.linspace(0, 1, 2 * RATE, dtype=np.float32)
    assert unsure_reason(music, 0.31) == "confidence 0.31 below 0.5"
    assert unsure_reason(music, 0.2263) == "confidence 0.23 below 0.5"  # the 23% that the page shows
    assert unsure_reason(music, 0.4999) == "confidence 0.49 below 0.5"
    assert unsure_reason(music, 0.5) is None
    assert unsure_reason(np.zeros(RATE, np.float32), 0.99) == "silence"


MEASURE = (
    PEAK
    + """
import numpy as np
from genreflow.inference.reliability import no_music
samples = np.random.default_rng(0).standard_normal(3_600 * 16_000, np.float32)
no_music(samples[:60 * 16_000])
before = peak()
no_music(samples)
print(peak() - before)
"""
)


def test_the_reliability_check_of_an_hour_needs_little_memory() -> None:
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 100, f"{run.stdout} MiB beside the 220 of the hour itself"
