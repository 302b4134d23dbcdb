"""musicnn's embedding as a frozen stage."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genreflow.backbones import FrozenStage
from genreflow.backbones.musicnn import weights
from genreflow.core.documents import InputSpec, Representation
from genreflow.core.errors import ModelError
from genreflow.core.openvino import convert_module, import_openvino
from genreflow.features import musicnn_mel

if TYPE_CHECKING:
    from torch import nn

STAGE = "embedding"
NAME = "musicnn"
PRETRAINING = (
    f"pretrained on the {weights.PRETRAINED_ON}; overlap with test recordings not excluded; "
    f"{weights.LICENCE} licence"
)
"""For cards and reports."""
WEIGHTS_FILE, CONFIG_FILE, LICENCE_FILE = "model.safetensors", "config.json", "LICENSE.md"
NOTICE = """\
The weights in this folder are those of musicnn (https://github.com/jordipons/musicnn), converted to
safetensors.

Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019. Code developed by Jordi Pons
(www.jordipons.me).

Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee
is hereby granted, provided that the above copyright notice and this permission notice appear in all
copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS
SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE
AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE
OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS
SOFTWARE.
"""
"""The ISC licence requires it in every copy."""


def represent(hop_seconds: float | None = None) -> Representation:
    """The canonical representation of musicnn's embedding of windows of 2.992 s.

    Args:
        hop_seconds: from one window to the next; the window's length where None.

    Raises:
        ModelError: the weights are not on this machine.
    """
    weights.load(download=False)
    seconds = musicnn_mel.WINDOW_SAMPLES / musicnn_mel.SAMPLE_RATE
    spec = InputSpec(
        sample_rate=musicnn_mel.SAMPLE_RATE,
        window_seconds=seconds,
        hop_seconds=hop_seconds or seconds,
        extend="repeat",
        representation="musicnn_log_mel",
    )
    return Representation(
        kind=NAME, input_spec=spec, stage=STAGE, backbone=NAME, digest=weights.WEIGHTS_SHA256
    )


def load(representation: Representation, device: str) -> FrozenStage:
    """See `genreflow.backbones.load_stage`. On the CPU by OpenVINO, many times as fast as PyTorch."""
    from genreflow.backbones.musicnn.network import BANDS, FRAMES

    module = _network(weights.load(download=False))
    if device == "cpu":
        openvino = import_openvino()
        model = convert_module(module, np.zeros((2, FRAMES, BANDS), np.float32))
        hint = openvino.properties.hint
        compiled = openvino.Core().compile_model(model, "CPU", {hint.inference_precision: openvino.Type.f32})
        return FrozenStage(STAGE, "float32", lambda rows: np.array(compiled(rows)[0], dtype=np.float32))
    import torch

    module = module.to(device)

    def compute(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(rows).to(device)).cpu().numpy()
        return found

    return FrozenStage(STAGE, "float32", compute)


def save(representation: Representation, folder: Path) -> None:
    """See `genreflow.backbones.save_stage`: weights, what they are, and their licence."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights.load(download=False), folder / WEIGHTS_FILE)
    config = {"architecture": NAME, "weights": weights.WEIGHTS_SHA256, "pretraining": PRETRAINING}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    (folder / LICENCE_FILE).write_text(NOTICE)


def load_module(parameters: dict[str, Any], folder: Path) -> "nn.Module":
    """See `genreflow.backbones.load_module`."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{folder} has no {WEIGHTS_FILE}: it is not a complete copy of musicnn.")
    return _network(weights.read_converted(path))


def _network(variables: weights.Variables) -> "nn.Module":
    from genreflow.backbones.musicnn.network import Musicnn

    return Musicnn(variables).eval()
