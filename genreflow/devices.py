"""Which processor PyTorch computes on."""

from typing import Literal

from genreflow.errors import SettingsError

CHOICES = ("auto", "cpu", "cuda")


def choose(wanted: str, setting: str = "device") -> Literal["cpu", "cuda"]:
    """The device that is meant: `auto` is CUDA where PyTorch sees it.

    Args:
        wanted: auto, cpu or cuda.
        setting: what the reader calls it, for the error.

    Raises:
        SettingsError: there is no such device, or none here.
    """
    import torch

    if wanted not in CHOICES:
        raise SettingsError(f"{setting}={wanted} is no device; it can be {', '.join(CHOICES)}.")
    seen = torch.cuda.is_available()
    if wanted == "cuda" and not seen:
        raise SettingsError(f"{setting}=cuda, but PyTorch sees no CUDA device here; set {setting}=auto.")
    return "cuda" if wanted != "cpu" and seen else "cpu"


def cuda() -> bool:
    """Whether PyTorch is installed here and sees a CUDA device."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
