"""Distortions of a recording with which robustness is measured: codecs, noise, bandwidth, speed, level, cuts.

Each distortion maps (n,) float32 samples at a rate in hertz to samples at the same rate; those with a random
part take a generator, so that the same seed gives the same recording.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from genreflow.audio.decode import decode
from genreflow.audio.windows import resample
from genreflow.core.errors import AudioError

MP3_KBIT = (128, 64, 32)
NOISE_SNR_DB = (30, 20, 10, 0)
SPEEDS = (0.96, 1.04)
GAINS_DB = (-30, -15)
OVERDRIVE_DB = (6, 12)
"""By how much the loudest sample would exceed full scale before it is clipped."""
SECONDS_KEPT = (15, 10, 5, 3)
TELEPHONE_HERTZ = (300.0, 3_400.0)
"""The voice band of ITU-T G.712."""
TELEPHONE_RATE = 8_000
FILTER_ORDER = 6
MPEG_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Rates in hertz that an mp3 of 128 kbit/s can have."""

Samples = NDArray[np.float32]


def mp3(samples: Samples, rate: int, kbit: int) -> Samples:
    """Encoded as a mono mp3 of constant bit rate (LAME, as PyAV bundles it) and decoded again.

    It is encoded at the clip's rate, or at the next higher one that such an mp3 can have.

    Raises:
        AudioError: the encoder is missing, or refuses the bit rate.
    """
    import av

    encoded_at = next((one for one in MPEG_RATES if one >= rate), MPEG_RATES[-1])
    content = np.ascontiguousarray(resample(samples, rate, encoded_at)[None], np.float32)
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp3") as container:
            stream = container.add_stream("libmp3lame", rate=encoded_at)
            stream.layout, stream.bit_rate = "mono", kbit * 1000
            frame = av.AudioFrame.from_ndarray(content, format="fltp", layout="mono")
            frame.sample_rate = encoded_at
            size = stream.codec_context.frame_size
            parts = av.AudioResampler(stream.format.name, "mono", encoded_at, size)
            for part in [*parts.resample(frame), *parts.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"An mp3 of {kbit} kbit/s at {encoded_at} Hz cannot be encoded: {error}.") from error
    decoded = decode(file.getvalue(), "the encoded clip")
    return resample(decoded.samples, decoded.sample_rate, rate)


def add_noise(samples: Samples, rate: int, rng: np.random.Generator, snr_db: float) -> Samples:
    """White noise added, the signal's mean power `snr_db` above the noise's."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) * 10 ** (-snr_db / 20)
    return samples + np.float32(level) * rng.standard_normal(len(samples), dtype=np.float32)


def telephone(samples: Samples, rate: int) -> Samples:
    """Band-limited to a telephone's 300 to 3,400 Hz, at 8 kHz, and back at `rate`."""
    from scipy.signal import butter, sosfilt

    narrow = resample(samples, rate, TELEPHONE_RATE)
    sections = butter(FILTER_ORDER, TELEPHONE_HERTZ, "bandpass", fs=TELEPHONE_RATE, output="sos")
    return resample(sosfilt(sections, narrow).astype(np.float32), TELEPHONE_RATE, rate)


def change_speed(samples: Samples, rate: int, factor: float) -> Samples:
    """Played `factor` times as fast: tempo and pitch together, as on a turntable."""
    return resample(samples, round(rate * factor), rate)


def gain(samples: Samples, rate: int, decibels: float) -> Samples:
    """Louder or quieter by so many decibels; nothing is clipped."""
    return samples * np.float32(10 ** (decibels / 20))


def clip(samples: Samples, rate: int, decibels: float) -> Samples:
    """Raised until the loudest sample lies `decibels` above full scale, and cut off there."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak == 0.0:
        return samples
    return np.clip(samples * np.float32(10 ** (decibels / 20) / peak), -1, 1).astype(np.float32, copy=False)


def middle(samples: Samples, rate: int, seconds: float) -> Samples:
    """The middle `seconds` of a clip; all of a shorter one."""
    count = min(len(samples), round(seconds * rate))
    start = (len(samples) - count) // 2
    return samples[start : start + count]


@dataclass(frozen=True)
class Distortion:
    """One kind and strength of distortion."""

    name: str
    """As a report shows it, `mp3, 64 kbit/s`."""
    kind: str
    """What it is one strength of, `mp3`."""
    apply: Callable[[Samples, int, np.random.Generator], Samples]
    """Samples, their rate in hertz, and what every random choice is drawn from."""


def _distortions() -> Iterator[Distortion]:
    for kbit in MP3_KBIT:
        yield Distortion(f"mp3, {kbit} kbit/s", "mp3", partial(_fixed, partial(mp3, kbit=kbit)))
    for snr in NOISE_SNR_DB:
        yield Distortion(f"white noise, SNR {snr} dB", "noise", partial(add_noise, snr_db=snr))
    yield Distortion("telephone band, 300 to 3400 Hz", "telephone band", partial(_fixed, telephone))
    for factor in SPEEDS:
        changed = partial(change_speed, factor=factor)
        yield Distortion(f"speed {100 * (factor - 1):+.0f} %", "speed", partial(_fixed, changed))
    for level in GAINS_DB:
        yield Distortion(f"gain {level} dB", "gain", partial(_fixed, partial(gain, decibels=level)))
    for level in OVERDRIVE_DB:
        clipped = partial(clip, decibels=level)
        yield Distortion(f"clipped, {level} dB over full scale", "clipping", partial(_fixed, clipped))
    for seconds in SECONDS_KEPT:
        kept = partial(middle, seconds=seconds)
        yield Distortion(f"the middle {seconds} s", "truncation", partial(_fixed, kept))


def _fixed(
    change: Callable[[Samples, int], Samples], samples: Samples, rate: int, rng: np.random.Generator
) -> Samples:
    return change(samples, rate)


DISTORTIONS: tuple[Distortion, ...] = tuple(_distortions())
"""Every distortion that robustness is measured under, the mildest of a kind first."""
