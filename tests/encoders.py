"""Encoder classifiers on tiny checkpoints with random weights, which yet answer windows differently."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import model_document
from checkpoints import tiny_checkpoint, window_seconds

from genreflow.core.documents import ModelDocument
from genreflow.core.genres import GENRES
from genreflow.families import family
from genreflow.features import window_inputs

RATE = 16_000
SPREAD = 4.0
"""Between the largest and the smallest logit of a genre."""
PROBE = {
    "layers": "inner",
    "combine": "concatenated",
    "pooling": "mean_std",
    "segments": 3,
    "standardise": True,
    "projection": None,
}
"""The recipe of `--profile gtzan-mini`: a head that transformers does not have."""


def write_encoder(folder: Path, layout: str, settings: dict[str, Any], **fields: Any) -> ModelDocument:
    """A classifier as training leaves one in `folder`; `fields` change its document."""
    kind = family("encoder")
    checkpoint = tiny_checkpoint(layout, folder.parent / "checkpoint")
    given = {"backbone": str(checkpoint), "window_seconds": window_seconds(layout)} | settings
    chosen = kind.settings_type.model_validate(given)
    document = model_document(
        settings=chosen.model_dump(mode="json"),
        input_spec=kind.input_spec(chosen),
        temperature=1.7,
        pretrained=str(checkpoint),
        **fields,
    )
    module: Any = kind.build(chosen, GENRES, "inputs", 0).eval()
    clips = windows(document)
    inputs = torch.from_numpy(
        np.concatenate([window_inputs(document.input_spec, one, RATE)[0] for one in clips])
    )
    if module.head.standard is not None:
        module.fit([inputs.repeat_interleave(8, dim=0)])
        module.eval()
    with torch.no_grad():
        last = [layer for layer in module.head.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.bias.zero_()
        logits = module(inputs).logits
        scale = SPREAD / (logits.amax(0) - logits.amin(0)).max()
        last.weight.mul_(scale)
        last.bias.copy_(-logits.mean(0) * scale)
    kind.save(module, folder)
    document.write(folder)
    return document


def windows(document: ModelDocument, count: int = 3) -> np.ndarray:
    """(count, samples) at the model's rate."""
    length = document.input_spec.window_samples
    times = np.arange(length) / RATE
    noise = np.random.default_rng(0).normal(size=(count, length)) * 0.02
    tones = [0.3 * np.sin(2 * np.pi * 200 * 3**number * times) for number in range(count)]
    return (noise + tones).astype(np.float32)
