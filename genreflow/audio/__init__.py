"""Audio: decoding of any file, resampling, windows."""

from genreflow.audio.decode import Audio, decode
from genreflow.audio.limits import BLOCK_SAMPLES, MAX_SAMPLE_RATE, MAX_SECONDS, MIN_SAMPLE_RATE
from genreflow.audio.windows import SKIPPED_REST_SHARE, cut_windows, plan_windows, resample

__all__ = [
    "BLOCK_SAMPLES",
    "MAX_SAMPLE_RATE",
    "MAX_SECONDS",
    "MIN_SAMPLE_RATE",
    "SKIPPED_REST_SHARE",
    "Audio",
    "cut_windows",
    "decode",
    "plan_windows",
    "resample",
]
