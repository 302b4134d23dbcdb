"""An encoder in the form that `transformers.pipeline("audio-classification")` loads.

The temperature goes with the weights: the pipeline takes the softmax of logits as they are. Where the head is
transformers' own, so are the files; where it is not, the code of the head lies beside them.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genreflow.backbones.transformers import checkpoint as checkpoints
from genreflow.backbones.transformers import pooling
from genreflow.core.documents import ModelDocument
from genreflow.families.encoder.settings import EncoderSettings
from genreflow.fitting.contract import TransformersForm

if TYPE_CHECKING:
    import torch

    from genreflow.backbones.transformers.checkpoint import Architecture

WEIGHTS, PREPROCESSOR, CONFIG = "model.safetensors", "preprocessor_config.json", "config.json"
CODE = (
    Path(__file__).with_name("modeling_genreflow.py"),
    Path(__file__).with_name("head.py"),
    Path(pooling.__file__),
)
HEAD_SETTINGS = (
    "layers",
    "combine",
    "normalise_layers",
    "pooling",
    "segments",
    "standardise",
    "projection",
    "dropout",
)


def export(model: Path, document: ModelDocument, out: Path) -> TransformersForm:
    """Write the model of a folder into `out`: labels, weights, extractor, and code where it needs its own.

    Raises:
        ModelError: the files of the model cannot be read.
    """
    from safetensors.torch import load_file, save_file

    settings = EncoderSettings.model_validate(document.settings)
    described = checkpoints.describe_checkpoint(model)
    architecture = described.architecture
    tensors = load_file(model / WEIGHTS)
    config = json.loads((model / CONFIG).read_text())
    out.mkdir(parents=True, exist_ok=True)
    extractor = _extractor(described.extractor, document)
    (out / PREPROCESSOR).write_text(json.dumps(extractor, indent=2, sort_keys=True) + "\n")
    stock = has_stock_head(architecture, settings, "projector.weight" in tensors)
    if stock:
        tensors = _tempered(tensors, document.temperature)
    else:
        tensors = _renamed(tensors, architecture.prefix)
        config = _own_config(config, architecture, settings, document.temperature)
        for path in CODE:
            # beside each other, they import each other
            (out / path.name).write_text(path.read_text().replace(pooling.__name__, ".pooling"))
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    (out / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return "stock" if stock else "own_code"


def has_stock_head(architecture: "Architecture", settings: EncoderSettings, projected: bool) -> bool:
    """Whether transformers' own audio classifier of that architecture computes the same logits."""
    plain = settings.pooling == "mean" and settings.segments == 1
    plain = plain and not settings.standardise and not settings.normalise_layers
    if architecture.summary_tokens:
        return plain and settings.layers == "last" and not isinstance(settings.projection, int)
    weighted = settings.layers == "weighted" and settings.combine == "weighted"
    return plain and projected and (settings.layers == "last" or weighted)


def _tempered(tensors: "dict[str, torch.Tensor]", temperature: float) -> "dict[str, torch.Tensor]":
    """The last layer's weights over the temperature: its logits are, too."""
    last = "classifier.dense" if "classifier.dense.weight" in tensors else "classifier"
    return tensors | {
        f"{last}.{part}": tensors[f"{last}.{part}"] / temperature for part in ("weight", "bias")
    }


def _renamed(tensors: "dict[str, torch.Tensor]", prefix: str) -> "dict[str, torch.Tensor]":
    """Under the names of `GenreflowForAudioClassification`."""
    return {
        f"encoder.{name.removeprefix(f'{prefix}.')}"
        if name.startswith(f"{prefix}.")
        else f"head.{name}": value
        for name, value in tensors.items()
    }


def _own_config(
    config: dict[str, Any], architecture: "Architecture", settings: EncoderSettings, temperature: float
) -> dict[str, Any]:
    labels = {name: config.pop(name) for name in ("id2label", "label2id")}
    head = settings.model_dump(mode="json")
    return {
        "architectures": ["GenreflowForAudioClassification"],
        "auto_map": {
            "AutoConfig": "modeling_genreflow.GenreflowConfig",
            "AutoModelForAudioClassification": "modeling_genreflow.GenreflowForAudioClassification",
        },
        "dtype": "float32",
        "encoder": config,
        "head": {name: head[name] for name in HEAD_SETTINGS},
        # of its own: under the encoder's, transformers would give the encoder a head with random weights
        "model_type": "genreflow",
        "prefix": architecture.prefix,
        "summary_tokens": architecture.summary_tokens,
        "temperature": temperature,
        **labels,
    }


def _extractor(extractor: dict[str, Any], document: ModelDocument) -> dict[str, Any]:
    """The extractor of the model's own window: Whisper's pads every clip to its length."""
    if "chunk_length" not in extractor:
        return extractor
    seconds = document.input_spec.window_seconds
    whole = {name: value for name, value in extractor.items() if name not in ("n_samples", "nb_max_frames")}
    return whole | {"chunk_length": int(seconds) if seconds == int(seconds) else seconds}
