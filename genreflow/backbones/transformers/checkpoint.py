"""Pretrained checkpoints: configuration, input specification, and encoder weights, checked to be complete."""

import contextlib
import difflib
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar

from genreflow.backbones.transformers.settings import BackboneSettings
from genreflow.core.digests import file_digest, text_digest
from genreflow.core.errors import ModelError, SettingsError, one_line
from genreflow.features import fbank, log_mel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

WEIGHTS, PREPROCESSOR = "model.safetensors", "preprocessor_config.json"
SAMPLE_RATE = 16_000
"""From scratch; a checkpoint says its own."""
HUB_SECONDS = 5.0
COMMIT = re.compile("[0-9a-f]{40}")
MAIN = "main"
"""The revision that a hub id stands for by itself."""
NO_NETWORK = (
    "without a network, name a folder with config.json, preprocessor_config.json and model.safetensors"
)
FRONT_END_KEYS = ("model_type", "sampling_rate", "conv_", "feat_extract", "num_feat_extract")
"""Beginnings of the configuration's keys that decide a waveform model's convolutional front end."""
SMALLEST = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
"""A transformer around a front end that is built for itself alone."""
OWN_CODE = "auto_map"
"""Where a checkpoint's JSON files name Python code, its own or another's, that transformers would run."""
WHISPER_STRIDE = 2
"""Log-mel frames to one position of Whisper's encoder."""


S = TypeVar("S", bound=BackboneSettings)


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
    commit: str | None = None
    """Of a hub id: the commit that configuration and extractor are of, and weights are loaded from."""


def describe(settings: BackboneSettings) -> Backbone:
    """The backbone that the settings name.

    Raises:
        ModelError: it is not there, cannot be reached, or is not an audio encoder of a known kind.
    """
    if settings.from_scratch is not None:
        return _from_scratch(settings)
    backbone = describe_checkpoint(settings.backbone, settings.revision)
    if backbone.architecture.representation == "waveform" and settings.normalise is not None:
        backbone.extractor["do_normalize"] = settings.normalise
    return backbone


def pinned(settings: S) -> S:
    """The settings with the commit that a hub id stands for now as their revision."""
    if settings.from_scratch is not None or Path(settings.backbone).expanduser().exists():
        return settings
    commit = hub_commit(settings.backbone, settings.revision)
    return settings.model_copy(update={"revision": commit or settings.revision})


def describe_checkpoint(source: str | Path, revision: str | None = None) -> Backbone:
    """What lies in a folder or on the hub, by its `config.json` and `preprocessor_config.json`.

    Code that comes with a checkpoint (`auto_map`) is never run: transformers' own is used, or it is refused.

    Args:
        source: a folder, or a hub id.
        revision: of a hub id: a commit, branch or tag; the main branch where None.

    Raises:
        ModelError: it is not there, cannot be reached, is not an audio encoder of a known kind, or needs code
            of its own.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, PreTrainedConfig
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    source = _resolve_revision(source, revision)
    # a branch of the hub may move between one file and the next
    commit = None if Path(source).is_dir() else hub_commit(source, revision)
    with quiet():
        try:
            content, _ = PreTrainedConfig.get_config_dict(source, revision=commit or revision or MAIN)
            if OWN_CODE in content and content.get("model_type") not in ARCHITECTURES:
                raise ModelError(
                    f"{source} needs code of its own ({OWN_CODE} in its config.json), which genreflow never "
                    f"runs; {_known_kinds()}."
                )
            config = AutoConfig.from_pretrained(
                source, revision=commit or revision or MAIN, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
            raise ModelError(_unusable(source, error)) from error
        model_type = getattr(config, "model_type", None)
        if model_type not in ARCHITECTURES:
            raise ModelError(f"{source} is a {model_type} model; {_known_kinds()}.")
        try:
            extractor, _ = FeatureExtractionMixin.get_feature_extractor_dict(
                source, revision=commit or revision or MAIN
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{source} has no readable preprocessor_config.json, so its input (sampling_rate, "
                "do_normalize, …) is unknown. Put the one its authors publish beside its config.json."
            ) from error
    # else models trained from it would name that code, and who trusts theirs would run it
    vars(config).pop(OWN_CODE, None)
    extractor.pop(OWN_CODE, None)
    return Backbone(source, ARCHITECTURES[model_type], config, dict(extractor), commit)


def _known_kinds() -> str:
    titles = (architecture.title for architecture in ARCHITECTURES.values())
    return f"a backbone is one of {', '.join(titles)}"


def identity(backbone: Backbone) -> str | None:
    """What identifies this content: a digest of a folder's files, a hub's commit.

    Files that say nothing of the model, and their times, do not matter. None from scratch.
    """
    if backbone.source is None:
        return None
    folder = Path(backbone.source)
    if not folder.is_dir():
        return at_commit(backbone.source, backbone.commit)
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return text_digest(
        f"{path.name} {file_digest(path)}" for path in [*sorted(folder.glob("*.json")), *weights]
    )


def at_commit(name: str, commit: str | None) -> str:
    """A hub id with its commit, where that is known."""
    return f"{name}@{commit}" if commit else name


def cached_commit(name: str, revision: str | None = None) -> str | None:
    """The commit of a hub id's revision that was loaded last; None where the hub's cache has none."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except errors.HFValidationError:
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None


def hub_commit(name: str, revision: str | None = None) -> str | None:
    """The commit that loading a hub id would take now: the hub's, or the cache's where no hub answers.

    Args:
        revision: a commit, branch or tag; the main branch where None.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    if not constants.HF_HUB_OFFLINE:
        with contextlib.suppress(Exception):  # what a missing network raises is the transport's choice
            url = hf_hub_url(name, "config.json", revision=revision)
            return get_hf_file_metadata(url, timeout=HUB_SECONDS).commit_hash
    return cached_commit(name, revision)


def configure(backbone: Backbone, settings: BackboneSettings, genres: tuple[str, ...]) -> "PreTrainedConfig":
    """The configuration to build with: the checkpoint's, with labels, masking and head as set."""
    config = deepcopy(backbone.config)
    config.num_labels = len(genres)
    config.id2label = dict(enumerate(genres))
    config.label2id = {genre: index for index, genre in enumerate(genres)}
    config.dtype = "float32"
    masking = {
        name: value
        for name in _MASKING
        if (value := getattr(settings, name, None)) is not None and hasattr(config, name)
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
    projection = getattr(settings, "projection", None)
    if hasattr(config, "classifier_proj_size") and isinstance(projection, int):
        config.classifier_proj_size = projection
    return config


def load_encoder(backbone: Backbone, settings: BackboneSettings, genres: tuple[str, ...], seed: int) -> Any:
    """The encoder in float32, pretrained or, from scratch, by `seed` (a frozen front end always by 0).

    Raises:
        ModelError: weights are missing, or do not fit the configuration.
    """
    config = configure(backbone, settings, genres)
    if backbone.source is None:
        encoder = new_encoder(backbone, config, seed)
        if hasattr(encoder, "feature_extractor"):  # the same for every seed: extraction computes it
            encoder.feature_extractor = scratch_front_end(settings)
        return encoder
    encoder = _pretrained_encoder(backbone, config)
    if backbone.architecture.representation == "whisper_log_mel" and settings.window_seconds is not None:
        samples = round(settings.window_seconds * int(backbone.extractor["sampling_rate"]))
        _shorten_positions(encoder, samples // (log_mel.HOP * WHISPER_STRIDE))
    return encoder


def save_encoder(encoder: Any, backbone: Backbone, folder: Path) -> None:
    """Write an encoder in Hugging Face's layout: config.json, preprocessor_config.json, model.safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    prefix = backbone.architecture.prefix
    tensors = {
        f"{prefix}.{name}": value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    encoder.config.save_pretrained(folder)
    (folder / PREPROCESSOR).write_text(json.dumps(backbone.extractor, indent=2, sort_keys=True) + "\n")


def read_encoder(backbone: Backbone, folder: Path) -> Any:
    """The encoder that `save_encoder` wrote into `folder`, in eval mode.

    Raises:
        ModelError: weights are missing, or do not fit the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    encoder = new_encoder(backbone, backbone.config, seed=0)
    prefix = f"{backbone.architecture.prefix}."
    try:
        state = load_file(folder / WEIGHTS)
        encoder.load_state_dict({name.removeprefix(prefix): value for name, value in state.items()})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read: {error}.") from error
    except RuntimeError as error:
        raise ModelError(f"The weights in {folder} do not fit its config.json: {error}") from error
    return encoder.eval()


def front_end_configuration(settings: BackboneSettings) -> dict[str, Any]:
    """Of settings that train from scratch, what decides the convolutional front end."""
    given = settings.from_scratch or {}
    own = {key: value for key, value in given.items() if key.startswith(FRONT_END_KEYS)}
    return {
        "from_scratch": dict(sorted(own.items())),
        "mel_front_end": settings.mel_front_end,
        "normalise": settings.normalise,
    }


def scratch_front_end(settings: BackboneSettings) -> Any:
    """The convolutional front end that training from scratch begins with: it depends on no seed.

    Raises:
        SettingsError: the configuration describes none.
    """
    scratch = front_end_configuration(settings)["from_scratch"]
    small = BackboneSettings(from_scratch=scratch | SMALLEST, mel_front_end=settings.mel_front_end)
    described = describe(small)
    encoder = new_encoder(described, described.config, 0)
    if settings.mel_front_end:
        from genreflow.backbones.transformers.scratch import begin_as_mel_filterbank

        begin_as_mel_filterbank(encoder, int(described.extractor["sampling_rate"]))
    return encoder.feature_extractor


def new_encoder(backbone: Backbone, config: "PreTrainedConfig", seed: int) -> Any:
    """An encoder of that configuration with random weights."""
    import torch
    from transformers import AutoModelForAudioClassification

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = AutoModelForAudioClassification.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            )
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


def _resolve_revision(source: str | Path, revision: str | None) -> str:
    """A folder as it stands, or a hub id; paths that lead nowhere are refused before the hub is contacted."""
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
    _query_hub(name, revision)
    return name


def _query_hub(name: str, revision: str | None) -> None:
    """One short question to the hub, unless its cache can answer: transformers would try for long."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return
        if constants.HF_HUB_OFFLINE:
            raise ModelError(
                f"{name} is no folder, and not in the hub's cache; {NO_NETWORK} (HF_HUB_OFFLINE is set)."
            )
        url = hf_hub_url(name, "config.json", revision=revision)
        get_hf_file_metadata(url, timeout=HUB_SECONDS)
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
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{name} on the Hugging Face hub has no revision {revision}: correct model.revision."
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
    return f"{source} is not a model that can be read: {one_line(error, first=True)}"


def _no_model(model_type: str, error: Exception) -> str:
    title = ARCHITECTURES[model_type].title
    return f"This configuration describes no {title} that can be built: {one_line(error)}"


def _from_scratch(settings: BackboneSettings) -> Backbone:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    assert settings.from_scratch is not None
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
                revision=backbone.commit or MAIN,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
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
