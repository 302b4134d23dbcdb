"""Sounds, one at a time: plucked, struck, blown and sung notes, drums, distortion, in plain NumPy.

Every instrument is made once a clip from the clip's generator, so that its timbre is that clip's own; it is
then a function from pitch and length to samples. Plucked strings are Karplus and Strong's loop (1983),
written in the frequency domain: each cycle is the one before it, every harmonic a little weaker.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

Sound = NDArray[np.float32]
Instrument = Callable[..., Sound]
"""(midi pitch, seconds, slide=0.0) → (samples,): `slide` is how many semitones away the note begins."""
Generator = np.random.Generator

RATE = 22_050
NYQUIST = RATE / 2
HIGHEST_PARTIAL = 0.45 * RATE
TABLE = 1024  # samples a cycle of a sustained wave
RELEASE = 0.02  # seconds in which a plucked or struck note is damped at its end

VOWELS = (
    ((700, 1.0), (1150, 0.7), (2600, 0.25)),
    ((400, 1.0), (2000, 0.5), (2700, 0.3)),
    ((300, 1.0), (2300, 0.4), (3000, 0.3)),
    ((450, 1.0), (850, 0.6), (2600, 0.15)),
    ((330, 1.0), (750, 0.4), (2500, 0.1)),
)
"""Formants (Hz, level) of a, e, i, o, u."""


def hertz(midi: float) -> float:
    """Frequency of a MIDI pitch, A4 = 69 = 440 Hz."""
    return float(440.0 * 2.0 ** ((midi - 69.0) / 12.0))


def length(seconds: float) -> int:
    """Samples in `seconds`, one at least."""
    return max(1, round(seconds * RATE))


def plucked(
    rng: Generator,
    *,
    tilt: float,
    ring: float,
    damping: float = 0.15,
    harmonics: int = 40,
    glide: float = 0.12,
    vibrato: float = 0.0,
) -> Instrument:
    """A string: `tilt` is the exponent by which harmonics start weaker, `ring` seconds to 1/e at 220 Hz."""
    position = rng.uniform(0.11, 0.31)
    turns = np.exp(2j * np.pi * rng.random(harmonics))
    shimmer = rng.uniform(0.7, 1.3, harmonics)

    def play(midi: float, seconds: float, slide: float = 0.0) -> Sound:
        samples, pitch = length(seconds), hertz(midi)
        partials = np.arange(1, _partials(pitch, harmonics) + 1)
        count = len(partials)
        level = partials**-tilt * np.abs(np.sin(np.pi * position * partials)) * shimmer[:count]
        rates = (1 + damping * partials**1.4) / ring * np.sqrt(pitch / 220)
        cycles = _cycles(pitch, samples, slide, glide, (5.5, vibrato))
        rows = int(cycles[-1]) + 2
        spectrum = np.exp(-np.outer(np.arange(rows) / pitch, rates)) * (level * turns[:count])
        size = 1 << int(4 * count).bit_length()
        padded = np.zeros((rows, size // 2 + 1), np.complex64)
        padded[:, 1 : count + 1] = spectrum
        return _finish(_look_up(np.fft.irfft(padded, size).ravel(), cycles * size), RELEASE)

    return _remembered(play)


def struck(
    rng: Generator,
    *,
    ratio: float,
    index: float,
    ring: float,
    hammer: float = 0.0,
    brightness_ring: float = 0.25,
) -> Instrument:
    """A struck note by frequency modulation (Chowning, 1973): piano, electric piano, bell."""
    index = index * rng.uniform(0.75, 1.25)
    detune = rng.uniform(0.0005, 0.002)
    knock = noise(rng, 0.03, 300, 3000) * np.exp(-np.arange(length(0.03)) / (0.006 * RATE)).astype(np.float32)

    def play(midi: float, seconds: float, slide: float = 0.0) -> Sound:
        samples, pitch = length(seconds), hertz(midi)
        cycles = 2 * np.pi * _cycles(pitch, samples, slide, 0.1, (0.0, 0.0))
        time = np.arange(samples) / RATE
        shade = min(1.0, HIGHEST_PARTIAL / (pitch * (1 + 4 * ratio)))
        amount = index * shade * np.exp(-time / brightness_ring)
        sound = np.sin(cycles + amount * np.sin(ratio * cycles)) + 0.4 * np.sin(
            (2 + detune) * cycles + 0.6 * amount * np.sin(cycles)
        )
        sound = sound * np.exp(-time / (ring * np.sqrt(220 / pitch)))
        head = min(samples, len(knock))
        sound[:head] += hammer * knock[:head]
        return _finish(sound, RELEASE)

    return _remembered(play)


def sustained(
    rng: Generator,
    *,
    tilt: float,
    even: float = 1.0,
    attack: float = 0.02,
    release: float = 0.05,
    vibrato: tuple[float, float] = (0.0, 0.0),
    voices: tuple[float, ...] = (0.0,),
    breath: float = 0.0,
    harmonics: int = 32,
    glide: float = 0.1,
) -> Instrument:
    """A held note: bowed, blown, organ, synthesiser. `even` scales even harmonics, `voices` are in cents."""
    turns = np.exp(2j * np.pi * rng.random(harmonics))
    shimmer = rng.uniform(0.75, 1.25, harmonics)
    offsets = rng.random(len(voices))

    def play(midi: float, seconds: float, slide: float = 0.0) -> Sound:
        samples, pitch = length(seconds), hertz(midi)
        partials = np.arange(1, _partials(pitch, harmonics) + 1)
        level = partials**-tilt * np.where(partials % 2 == 0, even, 1.0) * shimmer[: len(partials)]
        table = _table(level * turns[: len(partials)])
        cycles = _cycles(pitch, samples, slide, glide, vibrato)
        sound = np.zeros(samples, np.float32)
        for cents, offset in zip(voices, offsets, strict=True):
            sound += _look_up(table, (cycles * 2 ** (cents / 1200) + offset) % 1.0 * TABLE)
        if breath:
            sound += breath * noise(rng, seconds, pitch, min(8 * pitch, 9000))
        return _finish(sound * _rise(samples, attack), release)

    return _remembered(play) if not breath else play


def voice(rng: Generator, *, vibrato: float, glide: float = 0.06) -> Instrument:
    """A wordless singer: every note moves from one vowel to another."""
    size = rng.uniform(0.88, 1.18)

    def spectrum(pitch: float) -> Sound:
        partials = np.arange(1, _partials(pitch, 40) + 1)
        vowel = VOWELS[rng.integers(len(VOWELS))]
        shape = sum(
            level / (1 + ((partials * pitch - centre * size) / (0.12 * centre + 40)) ** 2)
            for centre, level in vowel
        )
        return _table(partials**-0.5 * (shape + 0.02) * np.exp(2j * np.pi * rng.random(len(partials))))

    def play(midi: float, seconds: float, slide: float = 0.0) -> Sound:
        samples, pitch = length(seconds), hertz(midi)
        position = _cycles(pitch, samples, slide, glide, (5.3, vibrato)) % 1.0 * TABLE
        blend = np.linspace(0, 1, samples, dtype=np.float32)
        sound = (1 - blend) * _look_up(spectrum(pitch), position) + blend * _look_up(
            spectrum(pitch), position
        )
        consonant = noise(rng, 0.05, 2000, 8000)[:samples] * rng.choice([0.0, 0.15, 0.4])
        sound = sound * _rise(samples, 0.03)
        sound[: len(consonant)] += consonant * np.linspace(1, 0, len(consonant))
        return _finish(sound, min(0.08, seconds / 3))

    return play


def noise(rng: Generator, seconds: float, low: float, high: float) -> Sound:
    """Noise of unit level between two frequencies (Hz), a soft half octave beyond them."""
    samples = length(seconds)
    bins = np.fft.rfftfreq(samples, 1 / RATE)
    shape = 1 / (1 + (low / np.maximum(bins, 1.0)) ** 6) / (1 + (bins / high) ** 6)
    spectrum = (rng.standard_normal(len(bins)) + 1j * rng.standard_normal(len(bins))) * shape
    sound = np.fft.irfft(spectrum, samples) if samples > 1 else np.zeros(1)
    return (sound / (np.sqrt(np.mean(sound**2)) + 1e-9)).astype(np.float32)


def kick(rng: Generator, *, pitch: float, seconds: float, click: float) -> Sound:
    """A bass drum: a sine falling to `pitch` Hz, with the beater's click."""
    time = np.arange(length(seconds)) / RATE
    fall = rng.uniform(2.0, 4.0)
    cycles = np.cumsum(pitch * (1 + fall * np.exp(-time / 0.02))) / RATE
    sound = np.sin(2 * np.pi * cycles) * np.exp(-time / (seconds / 4))
    head = length(0.01)
    sound[:head] += click * noise(rng, 0.01, 1500, 6000) * np.linspace(1, 0, head)
    return _finish(sound, RELEASE)


def snare(rng: Generator, *, pitch: float, seconds: float, wires: float, high: float = 8000) -> Sound:
    """A snare drum: a tuned head and `wires` of noise."""
    time = np.arange(length(seconds)) / RATE
    head = np.sin(2 * np.pi * np.cumsum(pitch * (1 + 0.4 * np.exp(-time / 0.01))) / RATE) * np.exp(
        -time / 0.05
    )
    return _finish(head + wires * noise(rng, seconds, 1200, high) * np.exp(-time / (seconds / 4)), RELEASE)


def cymbal(rng: Generator, *, seconds: float, low: float, bell: float = 0.0) -> Sound:
    """Hi-hat, ride or crash: high noise, with `bell` of ringing inharmonic partials."""
    time = np.arange(length(seconds)) / RATE
    sound = noise(rng, seconds, low, 10_500) * np.exp(-time / (seconds / 4))
    if bell:
        for partial in rng.uniform(2200, 7500, 6):
            sound = sound + bell * np.sin(2 * np.pi * partial * time) * np.exp(-time / (seconds / 2.5))
    return _finish(sound, RELEASE)


def clap(rng: Generator, *, seconds: float) -> Sound:
    """Several hands, not quite together."""
    sound = np.zeros(length(seconds + 0.04), np.float32)
    for start in (0.0, 0.011, 0.023, 0.03):
        burst = noise(rng, seconds if start == 0.03 else 0.012, 900, 5500)
        burst = burst * np.exp(-np.arange(len(burst)) / (len(burst) / 4))
        begin = length(start) - 1
        sound[begin : begin + len(burst)] += burst.astype(np.float32)
    return _finish(sound, RELEASE)


def brush(rng: Generator, *, seconds: float) -> Sound:
    """A wire brush drawn over the snare's head."""
    samples = length(seconds)
    return _finish(
        noise(rng, seconds, 1500, 7000) * np.sin(np.pi * np.linspace(0, 1, samples)) ** 1.5, RELEASE
    )


def rim(rng: Generator) -> Sound:
    """A stick laid across the snare's rim."""
    time = np.arange(length(0.08)) / RATE
    pitch = rng.uniform(1400, 1900)
    return _finish(
        (np.sin(2 * np.pi * pitch * time) + np.sin(np.pi * 0.55 * pitch * time)) * np.exp(-time / 0.012), 0.01
    )


def overdrive(sound: Sound, drive: float, low: float, high: float) -> Sound:
    """A valve amplifier and its loudspeaker: soft clipping at `drive` times the level, then a band (Hz)."""
    level = np.sqrt(np.mean(sound**2)) + 1e-9
    return band(
        np.tanh(sound * np.float32(drive / level) + np.float32(0.15)) - np.float32(np.tanh(0.15)), low, high
    )


def band(sound: Sound, low: float, high: float) -> Sound:
    """What lies between two frequencies (Hz), second-order slopes."""
    return np.asarray(sosfilt(_band(round(low), round(min(high, 0.95 * NYQUIST))), sound), np.float32)


def crackle(rng: Generator, samples: int, ticks_per_second: float) -> Sound:
    """An old record: hiss, rumble and ticks."""
    sound = 0.12 * rng.standard_normal(samples).astype(np.float32)
    ticks = rng.integers(0, samples, max(1, round(ticks_per_second * samples / RATE)))
    sound[ticks] += rng.exponential(4.0, len(ticks)).astype(np.float32) * rng.choice([-1, 1], len(ticks))
    return band(sound, 200, 7000)


@lru_cache(maxsize=256)
def _band(low: int, high: int) -> NDArray[np.float64]:
    return np.asarray(butter(2, [low, high], "bandpass", fs=RATE, output="sos"))


def _remembered(play: Callable[[float, float, float], Sound]) -> Instrument:
    memory: dict[tuple[float, float, float], Sound] = {}

    def remembered(midi: float, seconds: float, slide: float = 0.0) -> Sound:
        key = (midi, round(seconds, 3), slide)
        if key not in memory:
            memory[key] = play(*key)
        return memory[key]

    return remembered


def _partials(pitch: float, most: int) -> int:
    return max(1, min(most, int(HIGHEST_PARTIAL / pitch)))


def _cycles(
    pitch: float, samples: int, slide: float, glide: float, vibrato: tuple[float, float]
) -> NDArray[np.floating]:
    """Cycles since the note began (samples,): a slide from `slide` semitones away, then vibrato."""
    speed, depth = vibrato
    if not slide and not depth:
        return np.arange(samples) * (pitch / RATE)
    time = np.arange(samples) / RATE
    bend = slide * np.maximum(0.0, 1 - time / glide) ** 2
    if depth:
        bend = bend + depth * np.minimum(1.0, time / 0.25) * np.sin(2 * np.pi * speed * time)
    return np.cumsum(pitch * 2 ** (bend / 12)) / RATE


def _table(spectrum: NDArray[np.complex128]) -> Sound:
    """One cycle (TABLE + 1,) of harmonics 1, 2, …; the first sample again at the end, for interpolation."""
    padded = np.zeros(TABLE // 2 + 1, np.complex128)
    padded[1 : len(spectrum) + 1] = spectrum
    cycle = np.fft.irfft(padded, TABLE) * (TABLE / 2)
    return np.append(cycle, cycle[0]).astype(np.float32)


def _look_up(table: NDArray[np.floating], position: NDArray[np.floating]) -> Sound:
    index = position.astype(np.int64)
    fraction = (position - index).astype(np.float32)
    index = np.minimum(index, len(table) - 2)
    low = table[index].astype(np.float32)
    return low + fraction * (table[index + 1].astype(np.float32) - low)


def _rise(samples: int, attack: float) -> Sound:
    return np.minimum(1.0, np.arange(samples, dtype=np.float32) / (attack * RATE))


def _finish(sound: NDArray[np.floating], release: float) -> Sound:
    """The sound at a peak of one, faded out over its last `release` seconds."""
    finished = np.array(sound, np.float32)
    tail = min(len(finished), length(release))
    finished[-tail:] *= np.linspace(1, 0, tail, dtype=np.float32)
    return finished / np.float32(np.abs(finished).max() + 1e-9)
