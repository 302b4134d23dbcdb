"""How many clips a second ingest takes in, and how much memory for how many clips."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from sounds import write

pytestmark = pytest.mark.bench

CLIPS_PER_SECOND = 20.0
"""What is promised for GTZAN's clips (30 s, wav) on two cores."""
GROWTH_MIB = 40
"""What four times the clips may cost: rows of the manifest, and the allocator's slack."""

TAKE_IN = """
import json, resource, sys, time
from pathlib import Path
from genreflow.corpus.ingest import ingest, resolve
from genreflow.corpus.settings import CorpusSettings

source, out, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
listed = resolve(source)
began, busy = time.perf_counter(), time.process_time()
document = ingest(source, listed, CorpusSettings(protocol="grouped"), out, workers)
seconds, busy = time.perf_counter() - began, time.process_time() - busy
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
clips = sum(document.counts.values())
print(json.dumps({"clips": clips, "seconds": seconds, "busy": busy, "peak_mib": peak}))
"""


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


def _converted(source: Path, folder: Path, kind: str) -> Path:
    """Some clips of every genre in another format."""
    for path in sorted((source / "genres").glob("*/*0[0-5].wav")):
        samples, rate = soundfile.read(path, dtype="float32")
        write(folder / path.parent.name / f"{path.stem}.{kind}", samples, rate)
    return folder
