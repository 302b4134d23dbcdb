"""Pretrained encoders (HuBERT, wav2vec2, WavLM, Whisper, AST) fine-tuned or probed."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genreflow.backbones.transformers import checkpoint as checkpoints
from genreflow.backbones.transformers.stage import represent
from genreflow.core.documents import ModelDocument, Representation
from genreflow.core.errors import ModelError, SettingsError, one_line
from genreflow.families.encoder.settings import EncoderSettings
from genreflow.fitting.contract import TransformersForm
from genreflow.training.family import TorchFamily

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from genreflow.families.encoder.module import EncoderClassifier

__all__ = ["FAMILY", "Encoder", "EncoderSettings"]

WEIGHTS = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class Encoder(TorchFamily):
    """A pretrained encoder with a classification head."""

    name: ClassVar[str] = "encoder"
    title: ClassVar[str] = "a pretrained transformer encoder, fine-tuned or probed"
    settings_type: ClassVar[type[EncoderSettings]] = EncoderSettings
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "`model.method` `fine_tune`": {"method": "fine_tune"},
        "`model.method` `probe`": {"method": "probe"},
        "`model.method` `probe_then_fine_tune`": {"method": "probe_then_fine_tune"},
        "`model.from_scratch`": {"from_scratch": {}},
    }

    def representation(self, settings: EncoderSettings) -> Representation:
        """The pooled encoder for a probe, the front end where it is frozen, else the input representation."""
        described = checkpoints.describe(settings)
        self._check(described, settings)
        if settings.method == "probe":
            return represent(settings, "pooled")
        if described.architecture.representation != "waveform":
            return represent(settings, "inputs")
        return represent(settings, "front_end" if settings.freeze_front_end else "inputs")

    def backbone_digest(self, settings: EncoderSettings) -> str | None:
        """Of the whole checkpoint, also where training reads its spectrograms or waveforms alone."""
        return checkpoints.identity(checkpoints.describe(settings))

    def training_defaults(self, settings: EncoderSettings) -> dict[str, Any]:
        """The Hugging Face audio course's rate for fine-tuning; what suits a linear head for a probe."""
        if settings.method == "probe":
            return {"epochs": 100, "batch_size": 64, "learning_rate": 1e-3, "patience": 20}
        if settings.from_scratch is not None:
            return {"epochs": 20, "batch_size": 16, "learning_rate": 5e-4}
        defaults: dict[str, Any] = {"epochs": 10, "batch_size": 8, "learning_rate": 5e-5}
        if settings.method == "probe_then_fine_tune":
            defaults |= {"probe_epochs": 5, "head_learning_rate": 1e-3}
        return defaults

    def build(
        self, settings: EncoderSettings, genres: tuple[str, ...], stage: str, seed: int
    ) -> "EncoderClassifier":
        """The backbone's encoder with a new head."""
        import torch

        from genreflow.families.encoder.head import Head
        from genreflow.families.encoder.module import EncoderClassifier

        described = checkpoints.describe(settings)
        self._check(described, settings)
        encoder = checkpoints.load_encoder(described, settings, genres, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Head(encoder.config, described.architecture.summary_tokens, settings, len(genres))
        if settings.method == "probe":
            encoder.requires_grad_(False)
        if settings.freeze_front_end and hasattr(encoder, "feature_extractor"):
            encoder.feature_extractor._freeze_parameters()
        if settings.frozen_layers:
            for name, parameter in encoder.named_parameters():
                if _depth(name, encoder.config) <= settings.frozen_layers:
                    parameter.requires_grad_(False)
        return EncoderClassifier(encoder, head, described.architecture, described.extractor, stage)

    def fit_inputs(self, module: Any, batches: "Iterable[torch.Tensor]") -> None:
        """The statistics that `standardise` goes by."""
        module.fit(batches)

    def parameter_groups(self, module: Any, settings: EncoderSettings, training: Any) -> list[dict[str, Any]]:
        """Groups by learning rate and decay.

        Each layer down from the top multiplies the rate by `training.layer_decay`; the head has its own rate
        where one is set; biases, norms and other vectors have no weight decay.
        """
        head_rate = training.head_learning_rate or training.learning_rate
        config = module.encoder.config
        top = config.num_hidden_layers
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.startswith("head."):
                rate = head_rate
            else:
                rate = training.learning_rate * training.layer_decay ** (
                    top - _depth(name.removeprefix("encoder."), config)
                )
            weight_decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, weight_decay), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": weight_decay}
            for (rate, weight_decay), parameters in groups.items()
        ]

    def save(self, module: Any, folder: Path) -> None:
        """Hugging Face layout: config.json, preprocessor_config.json, model.safetensors.

        Where the head is transformers' own (`layers` last or weighted, unnormalised, mean pooling, a
        projection), `AutoModelForAudioClassification.from_pretrained` loads it as it is.
        """
        from safetensors.torch import save_file
        from transformers import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        prefix = module.architecture.prefix
        state = {f"{prefix}.{name}": value for name, value in module.encoder.state_dict().items()}
        state |= module.head.state_dict()
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config = module.encoder.config
        architecture: Any = MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING[type(config)]
        config.architectures = [architecture.__name__]
        config.save_pretrained(folder)
        (folder / PREPROCESSOR).write_text(json.dumps(module.extractor, indent=2, sort_keys=True) + "\n")

    def load_module(
        self, folder: Path, settings: EncoderSettings, genres: tuple[str, ...]
    ) -> "EncoderClassifier":
        """The whole model from `save`'s files."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from genreflow.families.encoder.head import Head
        from genreflow.families.encoder.module import EncoderClassifier

        folder = Path(folder)
        described = checkpoints.describe_checkpoint(folder)
        if described.config.num_labels != len(genres):
            raise ModelError(
                f"{folder} has {described.config.num_labels} genres, not the {len(genres)} of its document."
            )
        encoder = checkpoints.new_encoder(described, described.config, seed=0)
        head = Head(encoder.config, described.architecture.summary_tokens, settings, len(genres))
        prefix = f"{described.architecture.prefix}."
        try:
            state = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{folder / WEIGHTS} cannot be read: {one_line(error)}.") from error
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        rest = {name: value for name, value in state.items() if not name.startswith(prefix)}
        try:
            encoder.load_state_dict(own)
            head.load_state_dict(rest)
        except RuntimeError as error:
            raise ModelError(f"The weights in {folder} do not fit its settings: {one_line(error)}") from error
        module = EncoderClassifier(encoder, head, described.architecture, described.extractor, "inputs")
        return module.eval()

    def export_transformers(self, model: Path, document: ModelDocument, out: Path) -> TransformersForm:
        """See `export.py`."""
        from genreflow.families.encoder.export import export

        return export(model, document, out)

    def pretrained(self, settings: EncoderSettings) -> str | None:
        """The backbone as the settings name it; None from scratch."""
        return None if settings.from_scratch is not None else settings.backbone

    def pinned(self, settings: EncoderSettings) -> EncoderSettings:
        """The settings with the commit of a hub id as their revision."""
        return checkpoints.pinned(settings)

    def _check(self, described: checkpoints.Backbone, settings: EncoderSettings) -> None:
        if settings.mel_front_end and (
            settings.from_scratch is None or described.architecture.representation != "waveform"
        ):
            raise SettingsError(
                "mel_front_end begins a waveform model from scratch; a pretrained backbone, or one that "
                "takes spectrograms, does not use it: omit it."
            )
        if settings.method == "probe" and settings.from_scratch is not None:
            raise SettingsError(
                "A probe on random weights learns little: from_scratch needs method fine_tune."
            )
        layers = described.config.num_hidden_layers
        title = described.architecture.title
        if settings.frozen_layers > layers:
            raise SettingsError(
                f"This {title} has {layers} layers; {settings.frozen_layers} cannot be frozen."
            )
        if settings.segments > 1 and described.architecture.summary_tokens and settings.pooling == "mean":
            raise SettingsError(
                f"This {title} pools a window into {described.architecture.summary_tokens} tokens, with "
                "no segments: pool with mean_std, or leave segments at 1."
            )
        if isinstance(settings.layers, tuple):
            wrong = [number for number in settings.layers if not 0 <= number <= layers]
            if wrong or not settings.layers or len(set(settings.layers)) != len(settings.layers):
                raise SettingsError(
                    f"This {title} has the hidden states 0 to {layers}; layers is {list(settings.layers)}."
                )


def _depth(name: str, config: Any) -> int:
    """How high a parameter of the encoder lies: 0 below the transformer, n in and above its n-th layer."""
    if match := _LAYER.search(name):
        return int(match.group(1)) + 1
    above = (
        "encoder.layer_norm."
        if getattr(config, "do_stable_layer_norm", False)
        else ("layer_norm.", "layernorm.")
    )
    return config.num_hidden_layers if name.startswith(above) else 0


FAMILY = Encoder()
