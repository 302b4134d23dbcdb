"""Procedural music in ten styles: seeded clips to try everything with, without data set or network.

The same seed gives the same bytes. A model trained on these clips is tagged as synthetic wherever it goes:
the styles are caricatures of the genres, good to prove that the pipeline learns, worth nothing on real
music.
"""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import soundfile

from genreflow.core.documents import Frozen
from genreflow.core.errors import CorpusError
from genreflow.core.genres import GENRES
from genreflow.corpus.sources.base import SYNTHETIC_MARK
from genreflow.corpus.synthetic.performance import EQUALISER_HZ, Performance, Room, mix_down
from genreflow.corpus.synthetic.sound import RATE, Generator, Sound
from genreflow.corpus.synthetic.styles import NEIGHBOURS, STYLES, Range, Style

GENERATOR_VERSION = 1
"""Raised whenever the same seed would give other bytes."""
HARD_SHARE = 0.12
"""Clips that borrow parts from a neighbouring style."""
DOCUMENT = SYNTHETIC_MARK
KEYS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
LEAST_SECONDS = 1.0
FEW_CLIPS = 20  # below this many, starting a second process takes longer than playing


class ClipStyle(Frozen):
    """How one clip was played."""

    file: str
    """Relative to the corpus folder."""
    genre: str
    hard: bool
    """Some parts are borrowed from another style."""
    borrowed_from: str | None
    borrowed_parts: tuple[str, ...]
    tempo_bpm: float
    key: str
    scale: tuple[int, ...]
    """Semitones above the key."""
    beats: int
    swing: float
    parts: dict[str, str]
    """What was played in each role; a missing role is not there."""
    levels_db: dict[str, float]
    reverb_seconds: float
    wet: float
    equaliser_db: dict[str, float]
    high_cut_hz: float
    compression: float
    noise_dbfs: float
    rms_dbfs: float
    """Aimed at; the peak may hold it lower."""


def render(genre: str, index: int, seed: int, seconds: float) -> tuple[Sound, int]:
    """Play clip `index` of a genre: (samples,) float32 within [-1, 1], and the sample rate in Hz.

    Raises:
        CorpusError: there is no style of that name, or the clip is too short for music.
    """
    samples, _ = perform(genre, index, seed, seconds)
    return samples, RATE


def perform(genre: str, index: int, seed: int, seconds: float) -> tuple[Sound, ClipStyle]:
    """Synthesise a clip: (samples,) float32 at 22,050 Hz, and its style.

    Raises:
        CorpusError: there is no style of that name, or the clip is too short for music.
    """
    if genre not in STYLES:
        raise CorpusError(f"There is no synthetic style {genre!r}; there are {', '.join(STYLES)}.")
    if seconds < LEAST_SECONDS:
        raise CorpusError(
            f"A synthetic clip of {seconds} s holds no music; choose {LEAST_SECONDS} s or more."
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, GENRES.index(genre), index]))
    style = STYLES[genre]
    neighbour = str(rng.choice(NEIGHBOURS[genre])) if rng.random() < HARD_SHARE else None
    guest = STYLES[neighbour] if neighbour else None
    performance = _performance(
        rng, guest if guest and rng.random() < 0.5 else style, seconds, waltz=guest is None
    )
    played, borrowed = _play(performance, style, guest)
    room = _room(rng, style, guest, played)
    samples = mix_down(performance, room)
    return samples, ClipStyle(
        file=f"genres/{genre}/{genre}.{index:05d}.wav",
        genre=genre,
        hard=bool(borrowed),
        borrowed_from=neighbour if borrowed else None,
        borrowed_parts=borrowed,
        tempo_bpm=round(performance.bpm, 2),
        key=KEYS[performance.tonic],
        scale=performance.scale,
        beats=performance.beats,
        swing=round(performance.swing, 3),
        parts=played,
        levels_db={role: round(level, 2) for role, level in room.levels.items()},
        reverb_seconds=round(room.reverb_seconds, 2),
        wet=round(room.wet, 2),
        equaliser_db={
            f"{frequency:g} Hz": round(gain, 2)
            for frequency, gain in zip(EQUALISER_HZ, room.equaliser_db, strict=True)
        },
        high_cut_hz=round(room.high_cut, 1),
        compression=round(room.compression, 2),
        noise_dbfs=round(room.noise_dbfs, 1),
        rms_dbfs=round(room.rms_dbfs, 1),
    )


def synthesise(folder: Path, clips_per_genre: int, seconds: float, seed: int) -> None:
    """Write `clips_per_genre` 16-bit wav clips a genre, laid out as GTZAN is, with `synthetic.json`.

    Raises:
        CorpusError: there are to be no clips, or they are too short for music.
    """
    if clips_per_genre < 1:
        raise CorpusError(
            f"A synthetic corpus of {clips_per_genre} clips a genre is empty; choose 1 or more."
        )
    folder = Path(folder)
    for genre in GENRES:
        (folder / "genres" / genre).mkdir(parents=True, exist_ok=True)
    jobs = [(genre, index) for index in range(clips_per_genre) for genre in GENRES]
    workers = 1 if len(jobs) <= FEW_CLIPS else -1
    clips: list[dict[str, Any]] = joblib.Parallel(n_jobs=workers, batch_size=8)(
        joblib.delayed(_write)(folder, genre, index, seed, seconds) for genre, index in jobs
    )
    document = {
        "synthetic": True,
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "clips_per_genre": clips_per_genre,
        "seconds": seconds,
        "sample_rate": RATE,
        "genres": list(GENRES),
        "hard_clips": sum(clip["hard"] for clip in clips),
        "clips": sorted(clips, key=lambda clip: clip["file"]),
    }
    (folder / DOCUMENT).write_text(json.dumps(document, indent=1) + "\n")


def _write(folder: Path, genre: str, index: int, seed: int, seconds: float) -> dict[str, Any]:
    samples, style = perform(genre, index, seed, seconds)
    pcm = np.round(samples * 32767).astype(np.int16)
    soundfile.write(folder / style.file, pcm, RATE, subtype="PCM_16")
    return style.model_dump(mode="json")


def _performance(rng: Generator, style: Style, seconds: float, waltz: bool) -> Performance:
    """Time and harmony, drawn from a style; in three only where every player can."""
    scale, progression = style.harmony[rng.integers(len(style.harmony))]
    beats = style.beats[rng.integers(len(style.beats))] if waltz else 4
    return Performance(
        rng=rng,
        seconds=seconds,
        bpm=float(rng.uniform(*style.tempo)),
        tonic=int(rng.integers(12)),
        scale=scale,
        progression=progression,
        beats=beats,
        swing=float(rng.uniform(*style.swing)),
        swing_unit=style.swing_unit,
        looseness=float(rng.uniform(0.002, 0.010)),
        rubato=float(rng.uniform(*style.rubato)),
        first_bar=int(rng.integers(len(progression))),
        offset=float(rng.uniform(0, beats)),
    )


def _play(
    performance: Performance, style: Style, guest: Style | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Let the parts play: what was played in each role, and which roles were the guest's."""
    rng = performance.rng
    roles = list(style.parts)
    shared = [role for role in roles if guest and role in guest.parts and role != "colour"]
    lent: set[str] = set()
    if guest:
        lent = {
            str(role) for role in rng.choice(shared, min(len(shared), int(rng.integers(1, 3))), replace=False)
        }
        if "drums" in guest.parts and "drums" not in roles and rng.random() < 0.5:
            lent.add("drums")
    present = [role for role in roles if role in lent or rng.random() >= style.absent.get(role, 0.0)]
    if len(present) < 2:
        present = roles
    # The name on the label stays true: the guest never plays more of the parts than the hosts do.
    while len(lent) > len(set(present) - lent):
        lent.discard(max(lent))
    # Drums come first: what pumps with the kick must know where it falls.
    order = sorted({*present, *lent}, key=("drums", "bass", "chords", "lead", "colour").index)
    played = {}
    for role in order:
        parts = (guest if guest and role in lent else style).parts[role]
        played[role] = parts[rng.integers(len(parts))](performance)
    return played, tuple(role for role in order if role in lent)


def _room(rng: Generator, style: Style, guest: Style | None, played: dict[str, str]) -> Room:
    """The mix, drawn from a style; a guest's part that the style does not know comes at the guest's level."""

    def draw(span: Range) -> float:
        return float(rng.uniform(*span))

    known = {**(guest.levels if guest else {}), **style.levels}
    tilt = draw(style.tilt_db)
    return Room(
        levels={role: draw(known[role]) for role in played},
        reverb_seconds=draw(style.reverb),
        wet=draw(style.wet),
        equaliser_db=tuple(
            float(rng.normal(0, 1.8)) + tilt * share for share in (-0.5, -0.25, 0.0, 0.25, 0.5)
        ),
        low_cut=draw((20.0, 60.0)),
        high_cut=draw(style.high_cut),
        noise_dbfs=draw(style.noise_dbfs),
        compression=max(0.0, draw(style.compression)),
        rms_dbfs=draw(style.rms_dbfs),
    )
