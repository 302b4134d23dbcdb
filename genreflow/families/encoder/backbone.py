"""Pretrained checkpoints: what they are, how they hear, their encoder's weights, checked to be all there."""

import contextlib
import difflib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from genreflow.artifacts import file_digest, text_digest
from genreflow.errors import ModelError, SettingsError
from genreflow.families.encoder.settings import EncoderSettings
from genreflow.features import fbank, log_mel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

SAMPLE_RATE = 16_000
"""From scratch; a checkpoint says its own."""
HUB_SECONDS = 5.0
NO_NETWORK = (
    "without a network, name a folder with config.json, preprocessor_config.json and model.safetensors"
)
WHISPER_STRIDE = 2
"""Log-mel frames to one position of Whisper's encoder."""


@dataclass(frozen=True)
class Architecture:
    """What the family has to know about a `model_type`."""

    title: str
    prefix: str
    """Attribute and weight prefix of the encoder inside transformers' audio classification model."""
    representation: str
    summary_tokens: int = 0
    """Tokens before the frames that sum the window up."""


ARCHITECTURES: dict[str, Architecture] = {
    "hubert": Architecture("HuBERT", "hubert", "waveform"),
    "wav2vec2": Architecture("wav2vec2", "wav2vec2", "waveform"),
    "wavlm": Architecture("WavLM", "wavlm", "waveform"),
    "whisper": Architecture("Whisper", "encoder", "whisper_log_mel"),
    "audio-spectrogram-transformer": Architecture("AST", "audio_spectrogram_transformer", "ast_fbank", 2),
}


@dataclass(frozen=True)
class Backbone:
    """A checkpoint's description, without its weights."""

    source: str | None
    """Hub id or folder; None from scratch."""
    architecture: Architecture
    config: "PreTrainedConfig"
    extractor: dict[str, Any]
    """The content of `preprocessor_config.json`."""


def describe(settings: EncoderSettings) -> Backbone:
    """The backbone that the settings name.

    Raises:
        ModelError: it is not there, cannot be reached, or is not an audio encoder of a known kind.
    """
    if settings.from_scratch is not None:
        return _from_scratch(settings)
    backbone = describe_checkpoint(settings.backbone)
    if backbone.architecture.representation == "waveform" and settings.normalise is not None:
        backbone.extractor["do_normalize"] = settings.normalise
    return backbone


def describe_checkpoint(source: str | Path) -> Backbone:
    """What lies in a folder or on the hub, by its `config.json` and `preprocessor_config.json`.

    Raises:
        ModelError: it is not there, cannot be reached, or is not an audio encoder of a known kind.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    source = _place(source)
    with quiet():
        try:
            config = AutoConfig.from_pretrained(source)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
            raise ModelError(_unusable(source, error)) from error
        model_type = getattr(config, "model_type", None)
        if model_type not in ARCHITECTURES:
            raise ModelError(
                f"{source} is a {model_type} model; a backbone is one of "
                f"{', '.join(architecture.title for architecture in ARCHITECTURES.values())}."
            )
        try:
            extractor, _ = FeatureExtractionMixin.get_feature_extractor_dict(source)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{source} has no readable preprocessor_config.json, so how it wants to hear (sampling_rate, "
                "do_normalize, …) is unknown. Put the one its authors publish beside its config.json."
            ) from error
    return Backbone(source, ARCHITECTURES[model_type], config, dict(extractor))


def identity(backbone: Backbone) -> str | None:
    """What tells this content from another under the same name: a digest of a folder's files, a hub's commit.

    Files that say nothing of the model, and their times, do not matter. None from scratch.
    """
    if backbone.source is None:
        return None
    folder = Path(backbone.source)
    if not folder.is_dir():
        return at_commit(backbone.source, cached_commit(backbone.source))
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return text_digest(
        f"{path.name} {file_digest(path)}" for path in [*sorted(folder.glob("*.json")), *weights]
    )


def at_commit(name: str, commit: str | None) -> str:
    """A hub id with its commit, where that is known."""
    return f"{name}@{commit}" if commit else name


def cached_commit(name: str) -> str | None:
    """The commit of a hub id that was loaded last; None where the hub's cache has none."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except errors.HFValidationError:
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None


def hub_commit(name: str) -> str | None:
    """The commit that loading a hub id would take now: the hub's, or the cache's where no hub answers."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if not constants.HF_HUB_OFFLINE:
        with contextlib.suppress(Exception):  # what a missing network raises is the transport's choice
            return get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=HUB_SECONDS).commit_hash
    return cached_commit(name)


def configure(backbone: Backbone, settings: EncoderSettings, genres: tuple[str, ...]) -> "PreTrainedConfig":
    """The configuration to build with: the checkpoint's, with labels, masking and head as set."""
    config = deepcopy(backbone.config)
    config.num_labels = len(genres)
    config.id2label = dict(enumerate(genres))
    config.label2id = {genre: index for index, genre in enumerate(genres)}
    config.dtype = "float32"
    masking = {
        name: value
        for name in _MASKING
        if (value := getattr(settings, name)) is not None and hasattr(config, name)
    }
    for name, value in masking.items():
        setattr(config, name, value)
    if masking and hasattr(config, "apply_spec_augment"):
        config.apply_spec_augment = True
    if settings.layers != "last":
        # transformers leaves dropped layers out of the hidden states, and their numbers would shift
        for name in ("layerdrop", "encoder_layerdrop"):
            if hasattr(config, name):
                setattr(config, name, 0.0)
    if hasattr(config, "use_weighted_layer_sum"):
        config.use_weighted_layer_sum = settings.layers == "weighted"
    if hasattr(config, "classifier_proj_size") and isinstance(settings.projection, int):
        config.classifier_proj_size = settings.projection
    return config


def load_encoder(backbone: Backbone, settings: EncoderSettings, genres: tuple[str, ...], seed: int) -> Any:
    """The encoder in float32, pretrained or, from scratch, by `seed` (a frozen front end always by 0).

    Raises:
        ModelError: weights are missing, or do not fit the configuration.
    """
    config = configure(backbone, settings, genres)
    if backbone.source is None:
        encoder = new_encoder(backbone, config, seed)
        if hasattr(encoder, "feature_extractor"):
            if settings.freeze_front_end:  # extraction and training must agree on it
                encoder.feature_extractor = new_encoder(backbone, config, 0).feature_extractor
            if settings.mel_front_end:
                from genreflow.families.encoder.scratch import begin_as_mel_filterbank

                begin_as_mel_filterbank(encoder, int(backbone.extractor["sampling_rate"]))
        return encoder
    encoder = _pretrained_encoder(backbone, config)
    if backbone.architecture.representation == "whisper_log_mel" and settings.window_seconds is not None:
        samples = round(settings.window_seconds * int(backbone.extractor["sampling_rate"]))
        _shorten_positions(encoder, samples // (log_mel.HOP * WHISPER_STRIDE))
    return encoder


def new_encoder(backbone: Backbone, config: "PreTrainedConfig", seed: int) -> Any:
    """An encoder of that configuration with random weights."""
    import torch
    from transformers import AutoModelForAudioClassification

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = AutoModelForAudioClassification.from_config(config, dtype=torch.float32)
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
            raise SettingsError(_no_model(config.model_type, error)) from error
    return getattr(model, backbone.architecture.prefix)


_MASKING = ("mask_time_prob", "mask_time_length", "mask_feature_prob", "mask_feature_length")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and loading reports: what matters in them is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _place(source: str | Path) -> str:
    """A folder as it stands, or a hub id; paths that lead nowhere are refused before the hub is asked."""
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{source} is not a model: the folder has no config.json.")
        if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            raise ModelError(f"{source} has no weights: there is no model.safetensors in the folder.")
        return str(path)
    if path.exists():
        raise ModelError(
            f"{source} is a file; a backbone is a folder with config.json and model.safetensors."
        )
    name = str(source)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"There is no folder {source}.")
    _ask_hub(name)
    return name


def _ask_hub(name: str) -> None:
    """One short question to the hub, unless its cache can answer: transformers would try for long."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        if constants.HF_HUB_OFFLINE:
            raise ModelError(
                f"{name} is no folder, and not in the hub's cache; {NO_NETWORK} (HF_HUB_OFFLINE is set)."
            )
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=HUB_SECONDS)
    except errors.HFValidationError as error:
        raise ModelError(
            f"{name!r} is neither a folder nor a name that the Hugging Face hub could have."
        ) from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is gated on the Hugging Face hub: accept its terms there, set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no folder {name}, and no such model on the Hugging Face hub (or set HF_TOKEN)."
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{name} on the Hugging Face hub is not a model: it has no config.json.") from error
    except ModelError:
        raise
    except Exception as error:  # what a missing network raises is the transport's choice
        raise ModelError(
            f"{name} is no folder, and the Hugging Face hub cannot be reached ({type(error).__name__}); "
            f"{NO_NETWORK}."
        ) from error


def _unusable(source: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{source} is not a model that can be read: {reason}"


def _no_model(model_type: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"This configuration describes no {ARCHITECTURES[model_type].title} that can be built: {reason}"


def _from_scratch(settings: EncoderSettings) -> Backbone:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    assert settings.from_scratch is not None
    if settings.method == "probe":
        raise SettingsError("A probe on random weights learns little: from_scratch wants method fine_tune.")
    given = {"model_type": "hubert"} | settings.from_scratch
    rate = int(given.pop("sampling_rate", SAMPLE_RATE))
    model_type = given.pop("model_type")
    if model_type not in ARCHITECTURES:
        raise SettingsError(
            f"from_scratch.model_type is {model_type!r}; it can be {', '.join(ARCHITECTURES)}."
        )
    known = AutoConfig.for_model(model_type).to_dict()
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise SettingsError(
                f"There is no from_scratch.{key} in {model_type}; the nearest is {nearest!r}."
            )
    try:
        config = AutoConfig.for_model(model_type, **given)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise SettingsError(_no_model(model_type, error)) from error
    architecture = ARCHITECTURES[model_type]
    if architecture.representation == "waveform":
        extractor: dict[str, Any] = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "do_normalize": True if settings.normalise is None else settings.normalise,
            "feature_size": 1,
            "padding_value": 0.0,
            "return_attention_mask": False,
            "sampling_rate": rate,
        }
    elif architecture.representation == "whisper_log_mel":
        extractor = {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "chunk_length": config.max_source_positions * WHISPER_STRIDE * log_mel.HOP // rate,
            "feature_size": config.num_mel_bins,
            "hop_length": log_mel.HOP,
            "n_fft": log_mel.N_FFT,
            "sampling_rate": rate,
        }
    else:
        extractor = {
            "feature_extractor_type": "ASTFeatureExtractor",
            "num_mel_bins": config.num_mel_bins,
            "max_length": config.max_length,
            "mean": fbank.AUDIOSET_MEAN,
            "std": fbank.AUDIOSET_STD,
            "do_normalize": True,
            "sampling_rate": rate,
        }
    return Backbone(None, architecture, config, extractor)


def _pretrained_encoder(backbone: Backbone, config: "PreTrainedConfig") -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForAudioClassification

    assert backbone.source is not None
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # decides only what a checkpoint leaves open, the mask's vector
        try:
            model, report = AutoModelForAudioClassification.from_pretrained(
                backbone.source,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # heads of other labels; the encoder's are refused below
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UnpicklingError) as error:
            raise ModelError(_unusable(backbone.source, error)) from error
    prefix = f"{backbone.architecture.prefix}."
    missing = sorted(key for key in report["missing_keys"] if key.startswith(prefix))
    missing = [key for key in missing if not key.endswith("masked_spec_embed")]
    if missing:
        raise ModelError(
            f"{backbone.source} lacks {len(missing)} weights of a {backbone.architecture.title} encoder, "
            f"{missing[0]} among them. It is no checkpoint of the model that its config.json describes."
        )
    mismatched = sorted(str(key[0]) for key in report["mismatched_keys"] if str(key[0]).startswith(prefix))
    if mismatched:
        raise ModelError(
            f"{backbone.source} has weights of another shape than its config.json says: {mismatched[0]}."
        )
    return getattr(model, backbone.architecture.prefix)


def _shorten_positions(encoder: Any, positions: int) -> None:
    """Let Whisper's encoder take a shorter window than it was trained on, with the first of its positions."""
    from torch import nn

    table: torch.Tensor = encoder.embed_positions.weight
    if positions == len(table):
        return
    encoder.embed_positions = nn.Embedding.from_pretrained(table.detach()[:positions].clone(), freeze=True)
    encoder.max_source_positions = encoder.config.max_source_positions = positions
