"""Which processor PyTorch computes on."""

from typing import Literal

from genreflow.core.errors import SettingsError
from genreflow.core.processors import available_processors

CHOICES = ("auto", "cpu", "cuda")


def choose(wanted: str, setting: str = "device") -> Literal["cpu", "cuda"]:
    """The device of a setting: `auto` is CUDA where PyTorch sees it.

    Args:
        wanted: auto, cpu or cuda.
        setting: what the reader calls it, for the error.

    Raises:
        SettingsError: there is no such device, or none here.
    """
    if wanted not in CHOICES:
        raise SettingsError(f"{setting}={wanted} is no device; it can be {', '.join(CHOICES)}.")
    if wanted == "cpu":
        return "cpu"
    seen = cuda()
    if wanted == "cuda" and not seen:
        raise SettingsError(f"{setting}=cuda, but PyTorch sees no CUDA device here; set {setting}=auto.")
    return "cuda" if seen else "cpu"


def limit_torch_threads() -> None:
    """Let PyTorch compute with no more threads than there are processors for this process.

    Raises:
        ImportError: PyTorch is not installed.
    """
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), available_processors()))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch or NumPy says that memory, the device's or the machine's, ran out."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(should_reduce_batch_size(error))


def cuda() -> bool:
    """Whether PyTorch is installed here and sees a CUDA device."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
