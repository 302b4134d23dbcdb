"""Near duplicates: precision and recall on made re-encodings, and time and memory up to 10,000 clips."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from memory import PEAK
from reencodings import REENCODINGS, Clip

from genreflow.core.genres import GENRES
from genreflow.corpus import fingerprints
from genreflow.corpus.fingerprints import RATE, Fingerprints, Match, acoustic_fingerprint
from genreflow.corpus.sources import open_source

pytestmark = pytest.mark.bench

SIZES = (100, 1_000, 10_000)
MIXES = 2_000
PLANTED = 0.01
"""Share of the clips that are another version of one before."""
MINUTES = 3.0
"""What looking for near duplicates among 10,000 fingerprinted clips of 30 s may take."""
PEAK_MIB = 1_000


def matches(prints: list[np.ndarray], folder: Path) -> list[Match]:
    with Fingerprints(folder) as store:
        for each in prints:
            store.add(each)
        return store.matches()


@pytest.fixture(scope="module")
def music(shared: Path) -> list[Clip]:
    paths = sorted((shared / "gtzan-mini" / "genres").glob("*/*.wav"))
    return [soundfile.read(path, dtype="float32") for path in paths]


@pytest.mark.parametrize("seconds", [30, 5])
def test_precision_and_recall(
    music: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    # what lies under the threshold is reported, too
    monkeypatch.setattr(fingerprints, "MIN_SIMILARITY", 0.5)
    threshold = 0.75
    excerpts = [(samples[: seconds * rate], rate) for samples, rate in music]
    versions = ["the original", *REENCODINGS]
    prints = [acoustic_fingerprint(*clip) for clip in excerpts]
    for reencode in REENCODINGS.values():
        prints += [acoustic_fingerprint(*reencode(clip)) for clip in excerpts]
    found = matches(prints, tmp_path)
    same = {
        (match.first, match.second): match.similarity
        for match in found
        if match.first % len(music) == match.second % len(music)
    }
    other = [match.similarity for match in found if (match.first, match.second) not in same]
    print()
    for number, version in enumerate(versions[1:], 1):
        pairs = [(clip, number * len(music) + clip) for clip in range(len(music))]
        shares = [same.get(pair, 0.0) for pair in pairs]
        hits = sum(share >= threshold for share in shares)
        print(
            f"{seconds} s, {version}: {hits} of {len(music)} found, similarity {min(shares):.3f} at least, "
            f"{np.mean(shares):.3f} on average"
        )
    hits = sum(share >= threshold for share in same.values())
    false = sum(share >= threshold for share in other)
    possible = len(music) * len(versions) * (len(versions) - 1) // 2
    negatives = len(prints) * (len(prints) - 1) // 2 - possible
    print(
        f"{seconds} s, all pairs: recall {hits}/{possible}, precision {hits}/{hits + false} over {negatives} "
        f"pairs of different recordings, the most alike of them {max(other, default=0.0):.3f}"
    )
    assert hits >= 0.99 * possible
    assert false == 0


@pytest.mark.parametrize("parts", [2, 6])
def test_excerpts_of_one_recording_that_do_not_overlap(music: list[Clip], tmp_path: Path, parts: int) -> None:
    prints = []
    for samples, rate in music:
        prints += [acoustic_fingerprint(part, rate) for part in np.array_split(samples, parts)]
    found = matches(prints, tmp_path)
    reported = [(match.first // parts, match.second // parts, round(match.similarity, 3)) for match in found]
    print(
        f"\n{len(music)} recordings in {parts} parts each: {len(found)} pairs taken for the same: {reported}"
    )
    assert len(found) <= 1  # hiphop.00004 repeats a bar sample for sample


def test_the_synthetic_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [
        soundfile.read(item.open(), dtype="float32")
        for item in open_source("synthetic?clips=20&seconds=5", GENRES).items()
    ]
    busy = time.thread_time()
    prints = [acoustic_fingerprint(*clip) for clip in clips]
    busy = time.thread_time() - busy
    monkeypatch.setattr(fingerprints, "MIN_SIMILARITY", 0.5)
    found = matches(prints, tmp_path)
    most = max((match.similarity for match in found), default=0.0)
    print(
        f"\n{len(clips)} synthetic clips of 5 s: {busy / len(clips) * 1000:.2f} ms a fingerprint, "
        f"most alike {most:.3f}"
    )
    assert most < 0.75


SEARCH = (
    PEAK
    + """
import json, sys, time
from pathlib import Path
import numpy as np
from genreflow.corpus.fingerprints import Fingerprints

before = peak()
with Fingerprints(Path(sys.argv[1]).parent) as prints:
    with np.load(sys.argv[1]) as held:
        starts, bits = held["starts"], held["bits"]
    for start, end in zip(starts[:-1], starts[1:]):
        prints.add(bits[start:end])
    del bits
    began, busy = time.perf_counter(), time.process_time()
    found = prints.matches()
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
print(json.dumps({"pairs": [[m.first, m.second] for m in found], "seconds": seconds, "busy": busy,
                  "before": before, "peak": peak()}))
"""
)


def test_time_and_memory_up_to_10000_clips(music: list[Clip], tmp_path: Path) -> None:
    """Mixes of two pieces of music, each at a speed of its own, in five rotations of their bits.

    No two are alike but those planted, which have a tenth of their bits flipped and begin 0.2 s later.
    """
    low = [soxr.resample(samples, rate, RATE, quality="LQ") for samples, rate in music]
    rng = np.random.default_rng(0)
    mixes: list[np.ndarray] = []
    busy = 0.0
    # Every piece at every speed once: speeds nearer to each other would be near duplicates.
    speeds = np.geomspace(0.5, 2, 2 * MIXES // len(low))
    each = rng.permutation([(piece, speed) for piece in range(len(low)) for speed in speeds])
    for two in each.reshape(MIXES, 2, 2):
        one, other = (
            soxr.resample(low[int(piece)], RATE, RATE * speed, quality="QQ") for piece, speed in two
        )
        length = min(len(one), len(other), 30 * RATE)
        clip = one[:length] + np.float32(rng.uniform(0.5, 1)) * other[:length]
        began = time.thread_time()
        mixes.append(acoustic_fingerprint(clip, RATE))
        busy += time.thread_time() - began
    print(f"\n{busy / MIXES * 1000:.1f} ms a fingerprint of some 27 s, resampling aside")
    prints: list[np.ndarray] = []
    planted: list[tuple[int, int]] = []
    for number in range(max(SIZES)):
        turn, mix = divmod(number, MIXES)
        turn = 6 * turn
        bits = mixes[mix] << np.uint32(turn) | mixes[mix] >> np.uint32((32 - turn) % 32)
        if number and rng.random() < PLANTED:
            flips = np.packbits(rng.random((len(prints[-1]), 32)) < 0.1, axis=1).view(np.uint32)[:, 0]
            bits = (prints[-1] ^ flips)[4:]
            planted.append((number - 1, number))
        prints.append(bits)
    for size in SIZES:
        starts = np.cumsum([0, *map(len, prints[:size])])
        np.savez(tmp_path / "prints.npz", starts=starts, bits=np.concatenate(prints[:size]))
        command = [sys.executable, "-c", SEARCH, str(tmp_path / "prints.npz")]
        run = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        wanted = {pair for pair in planted if pair[1] < size}
        found = {tuple(pair) for pair in run["pairs"]}
        print(
            f"{size} clips, {starts[-1]} frames: {run['seconds']:.1f} s ({run['busy']:.1f} s of processor "
            f"time), peak {run['peak']:.0f} MiB ({run['before']:.0f} before), "
            f"{len(wanted & found)} of {len(wanted)} planted found, {len(found - wanted)} others"
        )
    assert run["seconds"] < MINUTES * 60
    assert run["peak"] < PEAK_MIB
    assert len(wanted & found) >= 0.95 * len(wanted)
    assert len(found - wanted) <= 0.05 * len(planted)
