"""The input specification of each pretrained architecture: its window and representation."""

from typing import TYPE_CHECKING

from genreflow.backbones.transformers.checkpoint import SAMPLE_RATE, WHISPER_STRIDE, Backbone
from genreflow.backbones.transformers.settings import BackboneSettings
from genreflow.core.documents import InputSpec
from genreflow.core.errors import ModelError, SettingsError
from genreflow.features import fbank, log_mel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WAVEFORM_WINDOW_SECONDS = 10.0


def input_spec_of(backbone: Backbone, settings: BackboneSettings) -> InputSpec:
    """The input specification of this backbone under these settings.

    Raises:
        ModelError: the checkpoint's own files contradict each other.
        SettingsError: the window does not fit the architecture.
    """
    by_representation = {"waveform": _waveform, "whisper_log_mel": _log_mel, "ast_fbank": _fbank}
    return by_representation[backbone.architecture.representation](backbone, settings)


def _waveform(backbone: Backbone, settings: BackboneSettings) -> InputSpec:
    rate = int(backbone.extractor.get("sampling_rate", SAMPLE_RATE))
    seconds = settings.window_seconds or WAVEFORM_WINDOW_SECONDS
    frames = frames_of(backbone.config, round(seconds * rate))
    longest_mask = getattr(settings, "mask_time_length", None) or backbone.config.mask_time_length
    if frames < max(longest_mask, 1):
        raise SettingsError(
            f"A window of {seconds} s gives {frames} frames, fewer than a mask of {longest_mask}: "
            "lengthen window_seconds or shorten mask_time_length."
        )
    return InputSpec(
        sample_rate=rate,
        window_seconds=seconds,
        hop_seconds=settings.hop_seconds or seconds,
        extend="repeat",
        representation="waveform",
        parameters={"normalise": bool(backbone.extractor.get("do_normalize", True))},
    )


def frames_of(config: "PreTrainedConfig", samples: int) -> int:
    """Frames that the convolutional front end gives for so many samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)


def _log_mel(backbone: Backbone, settings: BackboneSettings) -> InputSpec:
    config, extractor = backbone.config, backbone.extractor
    rate = int(extractor.get("sampling_rate", SAMPLE_RATE))
    n_mels = int(extractor.get("feature_size", log_mel.MELS))
    frame = (int(extractor.get("n_fft", log_mel.N_FFT)), int(extractor.get("hop_length", log_mel.HOP)))
    if frame != (log_mel.N_FFT, log_mel.HOP) or n_mels != config.num_mel_bins:
        raise ModelError(
            f"{backbone.source} needs log-mel frames of {frame[0]} samples every {frame[1]}, {n_mels} bands; "
            f"its encoder takes {config.num_mel_bins} bands, and Whisper's frames are 400 samples every 160."
        )
    position = log_mel.HOP * WHISPER_STRIDE / rate
    longest = config.max_source_positions * position
    seconds = settings.window_seconds or longest
    if seconds > longest or abs(seconds / position - round(seconds / position)) > 1e-6:
        raise SettingsError(
            f"Whisper takes windows of up to {longest:g} s in steps of {position:g} s, not {seconds:g} s."
        )
    return InputSpec(
        sample_rate=rate,
        window_seconds=seconds,
        hop_seconds=settings.hop_seconds or seconds,
        extend="silence",
        representation="whisper_log_mel",
        parameters={"n_mels": n_mels},
    )


def _fbank(backbone: Backbone, settings: BackboneSettings) -> InputSpec:
    config, extractor = backbone.config, backbone.extractor
    rate = int(extractor.get("sampling_rate", SAMPLE_RATE))
    n_mels = int(extractor.get("num_mel_bins", fbank.MELS))
    frames = int(extractor.get("max_length", fbank.FRAMES))
    if (n_mels, frames) != (config.num_mel_bins, config.max_length):
        raise ModelError(
            f"{backbone.source} contradicts itself: its extractor gives {frames} frames of {n_mels} bands, "
            f"its encoder takes {config.max_length} of {config.num_mel_bins}."
        )
    longest = frames * fbank.HOP / rate
    seconds = settings.window_seconds or longest
    if not fbank.FRAME / rate <= seconds <= longest:
        raise SettingsError(f"This AST takes windows of up to {longest:g} s, not {seconds:g} s.")
    return InputSpec(
        sample_rate=rate,
        window_seconds=seconds,
        hop_seconds=settings.hop_seconds or seconds,
        extend="repeat",
        representation="ast_fbank",
        parameters={
            "n_mels": n_mels,
            "max_length": frames,
            "mean": float(extractor.get("mean", fbank.AUDIOSET_MEAN)),
            "std": float(extractor.get("std", fbank.AUDIOSET_STD)),
            "normalise": bool(extractor.get("do_normalize", True)),
        },
    )
