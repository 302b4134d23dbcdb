"""The bases of families that are PyTorch modules."""

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from genreflow.core import devices
from genreflow.core.documents import ModelDocument
from genreflow.core.errors import HOW_TO_INSTALL_TRAINING, ModelError, one_line
from genreflow.core.openvino import convert_module, save_model
from genreflow.fitting.contract import FitContext, FitResult, Predict
from genreflow.training.modules import ModuleFamily

if TYPE_CHECKING:
    from torch import nn

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


class TorchFamily(ModuleFamily):
    """A family of modules with what they share: the Trainer engine, prediction, export by tracing.

    A family gives `build`, `parameter_groups`, `save` and `load_module`: see `ModuleFamily`.
    """

    def fit(self, context: FitContext) -> FitResult:
        """Train with the Trainer; the best epoch by validation is kept.

        A run that is killed leaves checkpoints behind; called again with the same inputs it goes on from the
        last one and ends where an undisturbed run would have. SIGTERM ends it with a checkpoint of the step
        that it is in, and with `SystemExit`. Several GPUs are used with one process each.
        `on_log` gets loss, learning_rate, grad_norm or eval_loss, eval_accuracy (both clip-level),
        eval_window_loss, eval_window_accuracy, each with epoch and seconds.

        Raises:
            DivergedError: the loss is no longer a number.
        """
        from genreflow.training import engine, launch

        processes = launch.processes_wanted(context.training.device)
        if processes > 1:
            return launch.fit(self, context, processes)
        return engine.fit(self, context)

    def load(
        self,
        folder: Path,
        settings: Any,
        genres: tuple[str, ...],
        precision: Literal["f32", "bf16"] = "f32",
        device: str = "cpu",
    ) -> Predict:
        try:
            import torch
        except ImportError as error:
            raise ModelError(
                f"{folder} needs PyTorch, which is not installed here ({error}): {HOW_TO_INSTALL_TRAINING}, "
                "or package the model for OpenVINO."
            ) from error

        if device == "cpu":
            devices.limit_torch_threads()
        place = torch.device(device)
        module = self.load_module(folder, settings, genres).to(place).eval()

        def predict(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            autocast = torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16")
            with torch.inference_mode(), autocast:
                logits = module(torch.from_numpy(inputs).to(place)).logits
            return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)

        return predict

    def export_openvino(
        self, folder: Path, document: ModelDocument, inputs: NDArray[np.float32], path: Path
    ) -> None:
        from genreflow.training.export import fuse_parametrizations, logits_only

        settings = self.settings_type.model_validate(document.settings)
        module = self.load_module(folder, settings, document.genres)
        fuse_parametrizations(module)
        save_model(convert_module(logits_only(module), inputs), path)


class ScratchFamily(TorchFamily):
    """A family of modules trained from random weights; its files are a state dict and a configuration.

    Such a family gives `network`, and `parameter_groups` where biases and norms are to decay, too.
    """

    architecture: ClassVar[str]
    """Kept with the weights; changes whenever older ones no longer fit."""

    @abstractmethod
    def network(self, genres: int, settings: Any) -> "nn.Module":
        """The module for so many genres, its weights drawn from torch's global generator."""

    def build(self, settings: Any, genres: tuple[str, ...], stage: str, seed: int) -> "nn.Module":
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.network(len(genres), settings)

    def parameter_groups(self, module: "nn.Module", settings: Any, training: Any) -> list[dict[str, Any]]:
        """The head and the rest, each with and without weight decay: biases, norms and vectors have none."""
        groups: dict[tuple[bool, bool], list[Any]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                key = (name.startswith("head."), parameter.squeeze().ndim > 1)
                groups.setdefault(key, []).append(parameter)
        head_rate = training.head_learning_rate or training.learning_rate
        return [
            {
                "params": parameters,
                "lr": head_rate if head else training.learning_rate,
                "weight_decay": training.weight_decay if decays else 0.0,
            }
            for (head, decays), parameters in groups.items()
        ]

    def save(self, module: "nn.Module", folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
        save_file(tensors, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps({"architecture": self.architecture}, indent=2) + "\n")

    def load_module(self, folder: Path, settings: Any, genres: tuple[str, ...]) -> "nn.Module":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            architecture = json.loads((folder / CONFIG_FILE).read_text())["architecture"]
            tensors = load_file(str(folder / WEIGHTS_FILE))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(
                f"{folder} holds no readable {self.name} model ({CONFIG_FILE}, {WEIGHTS_FILE}): "
                f"{one_line(error)}"
            ) from error
        if architecture != self.architecture:
            raise ModelError(
                f"{folder} holds {architecture}, and this version reads {self.architecture}: train it anew."
            )
        module = self.network(len(genres), settings)
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(
                f"The weights in {folder} do not fit {self.name} with {len(genres)} genres: {one_line(error)}"
            ) from error
        return module.eval()
