"""One performance: its time, its harmony, its tracks, and how they are mixed down."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.fft

from genreflow.corpus.synthetic.sound import RATE, Generator, Sound

MAJOR = (0, 2, 4, 5, 7, 9, 11)
NATURAL_MINOR = (0, 2, 3, 5, 7, 8, 10)
HARMONIC_MINOR = (0, 2, 3, 5, 7, 8, 11)
DORIAN = (0, 2, 3, 5, 7, 9, 10)
MIXOLYDIAN = (0, 2, 4, 5, 7, 9, 10)
PHRYGIAN = (0, 1, 3, 5, 7, 8, 10)
MAJOR_PENTATONIC = (0, 2, 4, 7, 9)
MINOR_PENTATONIC = (0, 3, 5, 7, 10)
BLUES = (0, 3, 5, 6, 7, 10)

CHORDS: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "5": (0, 7),
    "6": (0, 4, 7, 9),
    "7": (0, 4, 7, 10),
    "9": (0, 4, 7, 10, 14),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "m9": (0, 3, 7, 10, 14),
    "m7b5": (0, 3, 6, 10),
    "sus2": (0, 2, 7),
}
PEAK = 0.95
"""No sample of a finished clip lies beyond this."""

Chord = tuple[int, str]
"""(semitones above the tonic, a key of CHORDS)."""


@dataclass
class Performance:
    """A clip being played: parts add sounds to its tracks, in beats."""

    rng: Generator
    seconds: float
    bpm: float
    tonic: int
    """Pitch class, C = 0."""
    scale: tuple[int, ...]
    progression: tuple[Chord, ...]
    """One chord a bar, repeated."""
    beats: int = 4
    swing: float = 0.5
    """Where the second half of a swung pair begins, as a share of the pair."""
    swing_unit: float = 0.5
    """Length in beats of the notes that swing: eighths 0.5, sixteenths 0.25."""
    looseness: float = 0.006
    """Standard deviation in seconds of when a note is played."""
    rubato: float = 0.0
    """How far the beat wanders, in beats."""
    first_bar: int = 0
    """Bar of the progression at which the clip begins."""
    offset: float = 0.0
    """Beats of that bar that have gone by already."""
    tracks: dict[str, Sound] = field(default_factory=dict)
    hits: list[float] = field(default_factory=list)
    """When the bass drum falls (seconds), for what ducks under it."""

    @property
    def samples(self) -> int:
        return round(self.seconds * RATE)

    @property
    def bars(self) -> Iterator[tuple[int, float]]:
        """Every bar that sounds in the clip with its first beat."""
        count = int((self.seconds * self.bpm / 60 + self.offset + self.rubato) / self.beats) + 1
        return ((bar, float(bar * self.beats)) for bar in range(count))

    def lasting(self, beats: float) -> float:
        """Seconds that `beats` last."""
        return beats * 60 / self.bpm

    def when(self, beat: float) -> float:
        """Seconds from the clip's start at which `beat` falls: swung, with rubato."""
        pair = 2 * self.swing_unit
        whole, part = divmod(beat, pair)
        share = part / pair
        swung = 2 * share * self.swing if share < 0.5 else self.swing + (2 * share - 1) * (1 - self.swing)
        wander = self.rubato * np.sin(2 * np.pi * beat / 7.0) if self.rubato else 0.0
        return float((whole * pair + swung * pair + wander - self.offset) * 60 / self.bpm)

    def add(self, track: str, beat: float, sound: Sound, gain: float = 1.0) -> None:
        """Play `sound` on `track` at `beat`; what lies outside the clip is cut off."""
        loose = self.rng.normal(0.0, self.looseness) if self.looseness else 0.0
        start = round((self.when(beat) + loose) * RATE)
        line = self.tracks.get(track)
        if line is None:
            line = self.tracks[track] = np.zeros(self.samples, np.float32)
        begin, end = max(start, 0), min(start + len(sound), len(line))
        if begin < end:
            line[begin:end] += np.float32(gain) * sound[begin - start : end - start]

    def touch(self, low: float = 0.75, high: float = 1.0) -> float:
        """How hard a note is played this time."""
        return float(self.rng.uniform(low, high))

    def chord(self, bar: int) -> Chord:
        return self.progression[(bar + self.first_bar) % len(self.progression)]

    def root(self, bar: int, low: int) -> int:
        """The chord's root as a MIDI pitch, `low` at least and less than an octave above."""
        return low + (self.tonic + self.chord(bar)[0] - low) % 12

    def tones(self, bar: int, low: int, kind: str | None = None) -> list[int]:
        """The chord in close position from `low` upwards, as MIDI pitches."""
        degree, own = self.chord(bar)
        steps = CHORDS[own if kind is None else kind]
        return sorted(low + (self.tonic + degree + step - low) % 12 for step in steps)

    def ladder(self, low: int, high: int, scale: tuple[int, ...] | None = None) -> list[int]:
        """The scale's pitches from `low` to `high`."""
        steps = {(self.tonic + step) % 12 for step in (self.scale if scale is None else scale)}
        return [pitch for pitch in range(low, high + 1) if pitch % 12 in steps]

    def melody(
        self,
        rhythm: list[tuple[float, float]],
        low: int,
        high: int,
        scale: tuple[int, ...] | None = None,
        leap: int = 2,
    ) -> Iterator[tuple[int, float, float, int]]:
        """A phrase of one `rhythm` [(beat, beats)] a bar: (bar, beat, beats, pitch).

        Every other bar repeats a shape, now and then a fresh one; strong beats lean on the chord.
        """
        ladder = self.ladder(low, high, scale)
        steps = self.rng.integers(-leap, leap + 1, (2, len(rhythm)))
        place = int(self.rng.integers(len(ladder)))
        for bar, first in self.bars:
            chord = {pitch % 12 for pitch in self.tones(bar, 60)}
            fresh = self.rng.random() < 0.25
            for note, (beat, beats) in enumerate(rhythm):
                step = self.rng.integers(-leap, leap + 1) if fresh else steps[bar % 2, note]
                place = int(np.clip(place + step, 0, len(ladder) - 1))
                if beat % 2 == 0:
                    for near in (0, 1, -1, 2, -2):
                        if 0 <= place + near < len(ladder) and ladder[place + near] % 12 in chord:
                            place += near
                            break
                yield bar, first + beat, beats, ladder[place]
            if place in (0, len(ladder) - 1):
                place = len(ladder) // 2

    def change(self, track: str, effect: Callable[[Sound], Sound]) -> None:
        """Send a whole track through an effect."""
        if track in self.tracks:
            self.tracks[track] = np.asarray(effect(self.tracks[track]), np.float32)

    def duck(self, track: str, depth: float, seconds: float) -> None:
        """Turn `track` down under every hit of the bass drum, as a side-chained compressor does."""
        if track not in self.tracks:
            return
        gain = np.ones(self.samples, np.float32)
        dip = 1 - depth * (1 - np.linspace(0, 1, max(1, round(seconds * RATE)), dtype=np.float32)) ** 1.5
        for hit in self.hits:
            begin = max(0, round(hit * RATE))
            span = gain[begin : begin + len(dip)]
            np.minimum(span, dip[: len(span)], out=span)
        self.tracks[track] *= gain

    def echo(self, track: str, beats: float, feedback: float) -> None:
        """A tape echo: repeats of the track, each `feedback` of the one before."""
        if track not in self.tracks:
            return
        line, delay = self.tracks[track], max(1, round(self.lasting(beats) * RATE))
        dry = line.copy()
        for repeat in range(1, 4):
            if repeat * delay < len(line):
                line[repeat * delay :] += np.float32(feedback**repeat) * dry[: len(line) - repeat * delay]


@dataclass(frozen=True)
class Room:
    """How a performance is mixed down."""

    levels: dict[str, float]
    """RMS level of each track in dB, relative to each other."""
    reverb_seconds: float
    """Time in which the room's sound falls by 60 dB."""
    wet: float
    equaliser_db: tuple[float, ...]
    """Gain at 60, 200, 700, 2400 and 8000 Hz."""
    low_cut: float
    high_cut: float
    noise_dbfs: float
    compression: float
    """0: none; 3: everything as loud as everything else."""
    rms_dbfs: float


EQUALISER_HZ = (60.0, 200.0, 700.0, 2400.0, 8000.0)


def mix_down(performance: Performance, room: Room) -> Sound:
    """The finished clip, (samples,) float32 within ±PEAK."""
    mix = np.zeros(performance.samples, np.float32)
    for name, line in performance.tracks.items():
        level = float(np.sqrt(np.mean(line**2)))
        if level > 0:
            mix += line * np.float32(10 ** (room.levels.get(name, -6.0) / 20) / level)
    mix = _in_the_room(performance.rng, mix, room)
    rms = np.sqrt(np.mean(mix**2)) + 1e-9
    if room.compression:
        mix = np.tanh(mix * np.float32(room.compression / (3 * rms)))
        rms = np.sqrt(np.mean(mix**2)) + 1e-9
    mix *= np.float32(10 ** (room.rms_dbfs / 20) / rms)
    mix += np.float32(10 ** (room.noise_dbfs / 20)) * performance.rng.standard_normal(
        performance.samples, np.float32
    )
    peak = float(np.abs(mix).max())
    return mix if peak <= PEAK else mix * np.float32(PEAK / peak)


def _in_the_room(rng: Generator, mix: Sound, room: Room) -> Sound:
    """Equaliser, cuts and reverberation in one pass through the spectrum."""
    tail = round(room.reverb_seconds * RATE)
    size = scipy.fft.next_fast_len(len(mix) + tail, real=True)
    bins = np.fft.rfftfreq(size, 1 / RATE).astype(np.float32)
    bins[0] = bins[1]
    gain = np.interp(np.log(bins), np.log(EQUALISER_HZ), room.equaliser_db).astype(np.float32)
    shape = 10 ** (gain / 20) / np.sqrt((1 + (room.low_cut / bins) ** 4) * (1 + (bins / room.high_cut) ** 6))
    spectrum = scipy.fft.rfft(mix, size) * shape.astype(np.float32)
    if room.wet and tail:
        time = np.arange(tail, dtype=np.float32) / np.float32(RATE)
        response = rng.standard_normal(tail, np.float32) * np.exp(-6.9 / room.reverb_seconds * time)
        response[: round(0.008 * RATE)] = 0
        response *= np.float32(room.wet) / np.sqrt(np.sum(response**2) + 1e-9)
        spectrum *= 1 + scipy.fft.rfft(response, size) / np.sqrt(1 + (bins / 4000) ** 2)
    return np.asarray(scipy.fft.irfft(spectrum, size)[: len(mix)], np.float32)
