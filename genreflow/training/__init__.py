"""What torch families share: settings, the Hugging Face Trainer engine, checkpoints, export by tracing.

Importing this package or `genreflow.training.family` loads no torch.
"""

from genreflow.training.family import ScratchFamily, TorchFamily
from genreflow.training.settings import TrainingSettings

__all__ = ["ScratchFamily", "TorchFamily", "TrainingSettings"]
