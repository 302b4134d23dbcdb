"""The 57 descriptors against librosa's plain calls, one thread each, and against the published table."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.bench

CLIPS_PER_GENRE = 2
TIMES_AS_FAST = 8.0
RELATIVE = 1e-3
"""What every descriptor is within of librosa's, on every clip, but for `NEAR_ZERO`."""
NEAR_ZERO = ("harmony_mean", "perceptr_mean")
"""Means of waveforms, nothing but rounding: see docs/benchmarks.md."""
NEAR_TABLE = 0.01
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
MEASURE = """
import json, sys, time
from pathlib import Path
from test_descriptors import by_librosa
from genreflow.audio import decode
from genreflow.features.descriptors import SAMPLE_RATE, descriptors

seconds, found = {"ours": [], "librosa": []}, {}
ways = {"ours": lambda samples: descriptors(samples, SAMPLE_RATE), "librosa": by_librosa}
for number, path in enumerate(map(Path, sys.argv[1:])):
    samples = decode(path).samples
    for name, way in ways.items():
        if number == 0:
            way(samples)  # imports, tables, librosa's compilation
        began = time.process_time()
        values = way(samples)
        seconds[name].append(time.process_time() - began)
        found.setdefault(path.stem, {})[name] = values
print(json.dumps({"seconds": seconds, "found": found}))
"""


def test_descriptors_are_librosas_and_eight_times_as_fast(shared: Path) -> None:
    genres = shared / "gtzan-mini" / "genres"
    clips = [clip for genre in sorted(genres.iterdir()) for clip in sorted(genre.iterdir())[:CLIPS_PER_GENRE]]
    environment = {
        **os.environ,
        **dict.fromkeys(VARIABLES, "1"),
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent.parent / "features"), os.environ.get("PYTHONPATH", "")]
        ),
    }
    command = [sys.executable, "-c", MEASURE, *map(str, clips)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    with (shared / "reference" / "features_30_sec.csv").open(newline="") as file:
        table = {row["filename"].removesuffix(".wav"): row for row in csv.DictReader(file)}

    found = measured["found"]
    names = list(next(iter(found.values()))["ours"])
    worst: dict[str, float] = {}
    print(f"\n{'descriptor':28}{'largest relative difference':>30}{'clips within 1 % of the table':>32}")
    for name in names:
        differences = [
            abs(values["ours"][name] - values["librosa"][name]) / max(abs(values["librosa"][name]), 1e-12)
            for values in found.values()
        ]
        near = [
            abs(values["ours"][name] - float(table[clip][name])) <= NEAR_TABLE * abs(float(table[clip][name]))
            for clip, values in found.items()
            if clip in table
        ]
        worst[name] = max(differences)
        print(f"{name:28}{worst[name]:30.2e}{sum(near):26} of {len(near)}")
    ours, theirs = (float(np.median(measured["seconds"][name])) for name in ("ours", "librosa"))
    print(
        f"ours {ours * 1e3:.0f} ms, librosa {theirs * 1e3:.0f} ms a clip of 30 s: {theirs / ours:.1f} times"
    )
    assert {name for name, value in worst.items() if value > RELATIVE} <= set(NEAR_ZERO)
    assert theirs / ours >= TIMES_AS_FAST
