"""A trained module in the form that tracing converts: logits alone, weights as constants."""

from torch import Tensor, nn
from torch.nn.utils import parametrize


def fuse_parametrizations(module: nn.Module) -> None:
    """Replace parametrised weights (HuBERT's weight norm) by their values: constants for tracing."""
    for part in module.modules():
        if parametrize.is_parametrized(part):
            for name in list(part.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(part, name)


def logits_only(module: nn.Module) -> nn.Module:
    """The module with its logits as the only output, in eval mode."""

    class LogitsOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.module(inputs).logits
            return logits

    return LogitsOnly().eval()
