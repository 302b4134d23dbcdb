"""How many clips a second ingest takes in, and how much memory for how many clips."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from memory import PEAK
from numpy.typing import NDArray
from sounds import write

from genreflow.core.genres import GENRES

pytestmark = pytest.mark.bench

CLIPS_PER_SECOND = 20.0
"""The target for GTZAN's clips (30 s, wav) on two cores."""
CURVE = (100, 1_000, 10_000)
CURVE_SECONDS, CURVE_RATE = 3.0, 22_050
"""Short clips, so that ten thousand take minutes: what a clip costs apart from its length shows the more."""
TIMES_AS_LONG = 1.5
"""What a clip among ten thousand may cost of one among a hundred, which pays for the start."""
KIB_A_CLIP = 16
"""What a clip may leave in memory: its row, and its share of the search for duplicates."""
GROWTH_MIB = 40
"""What four times the clips may cost: rows of the manifest, and the allocator's slack."""

TAKE_IN = (
    PEAK
    + """
import json, sys, time
from pathlib import Path
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings

source, out, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
listed = resolve(source)
began, busy = time.perf_counter(), time.process_time()
document = ingest(source, listed, CorpusSettings(protocol="grouped"), out, workers)
seconds, busy = time.perf_counter() - began, time.process_time() - busy
clips = document.clips
print(json.dumps({"clips": clips, "seconds": seconds, "busy": busy, "peak_mib": peak()}))
"""
)


def take_in(source: Path, out: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, "-c", TAKE_IN, str(source), str(out), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "m4a"])
def test_clips_per_second(shared: Path, tmp_path: Path, kind: str) -> None:
    source = shared / "gtzan-mini"
    if kind != "wav":
        source = _converted(source, tmp_path / kind, kind)
    cores = os.cpu_count() or 1
    print()
    for workers in sorted({1, cores}):
        runs = [take_in(source, tmp_path / f"{kind}-{workers}-{run}", workers) for run in range(3)]
        rates = sorted(run["clips"] / run["seconds"] for run in runs)
        print(
            f"ingest {kind}, 30 s clips, {workers} of {cores} cores: {rates[1]:.0f} clips/s "
            f"(of three: {rates[0]:.0f} to {rates[2]:.0f}), "
            f"{min(run['busy'] / run['clips'] for run in runs) * 1000:.1f} ms of processor time a clip, "
            f"peak {runs[1]['peak_mib']:.0f} MiB"
        )
    if kind == "wav":
        assert rates[1] >= CLIPS_PER_SECOND


def test_memory_over_the_number_of_clips(shared: Path, tmp_path: Path) -> None:
    peaks = {}
    print()
    for times in (1, 2, 4, 8):
        folder = tmp_path / f"times-{times}"
        for path in sorted((shared / "gtzan-mini" / "genres").glob("*/*.wav")):
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            for copy in range(times):
                (folder / path.parent.name / f"{path.stem}-{copy}.wav").symlink_to(path)
        run = take_in(folder, tmp_path / f"corpus-{times}", os.cpu_count() or 1)
        peaks[times] = run["peak_mib"]
        print(
            f"ingest of {run['clips']} clips of 30 s: peak {run['peak_mib']:.0f} MiB, {run['seconds']:.1f} s"
        )
    assert peaks[8] - peaks[2] < GROWTH_MIB


def test_curve(tmp_path: Path) -> None:
    """Time and memory a clip at 100, 1,000 and 10,000 synthetic clips, no two of them alike."""
    folder = tmp_path / "music"
    written = 0
    runs = []
    print()
    for clips in CURVE:
        for number in range(written, clips):
            write(folder / GENRES[number % 10] / f"{number:05d}.wav", _melody(number), CURVE_RATE)
        written = clips
        run = take_in(folder, tmp_path / f"corpus-{clips}", os.cpu_count() or 1)
        shutil.rmtree(tmp_path / f"corpus-{clips}")
        assert run["clips"] == clips
        runs.append(run)
        print(
            f"ingest of {clips:,} clips of {CURVE_SECONDS:g} s: {run['clips'] / run['seconds']:.0f} clips/s, "
            f"{run['busy'] / run['clips'] * 1000:.1f} ms of processor time a clip, "
            f"peak {run['peak_mib']:.0f} MiB"
        )
    few, some, many = runs  # of few, not even one batch of the writer is full
    kib = (many["peak_mib"] - some["peak_mib"]) * 1024 / (many["clips"] - some["clips"])
    print(f"{kib:.1f} KiB a clip more")
    assert many["busy"] / many["clips"] < TIMES_AS_LONG * few["busy"] / few["clips"]
    assert kib < KIB_A_CLIP


def _melody(number: int) -> NDArray[np.float32]:
    """Twelve notes with overtones and noise, of a seed of their own: no two clips sound alike."""
    rng = np.random.default_rng(number)
    time = np.arange(round(CURVE_SECONDS * CURVE_RATE / 12)) / CURVE_RATE
    pitches = 110 * 2 ** rng.uniform(0, 4, 12)
    decay = np.exp(-6 * time)
    notes = [
        sum(np.sin(2 * np.pi * pitch * k * time) * rng.uniform(0.1, 1) / k for k in range(1, 6)) * decay
        for pitch in pitches
    ]
    sound = np.concatenate(notes) * 0.2 + rng.normal(0, 0.01, 12 * len(time))
    return sound.astype(np.float32)


def _converted(source: Path, folder: Path, kind: str) -> Path:
    """Some clips of every genre in another format."""
    for path in sorted((source / "genres").glob("*/*0[0-5].wav")):
        samples, rate = soundfile.read(path, dtype="float32")
        write(folder / path.parent.name / f"{path.stem}.{kind}", samples, rate)
    return folder
