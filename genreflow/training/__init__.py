"""The one training engine for torch families: settings, and `fine_tune` from features to a model.

Importing this package loads no torch; `fine_tune` does.
"""

from pathlib import Path
from typing import Any

from genreflow.artifacts import ModelDocument
from genreflow.training.settings import OnLog, TrainingSettings, training_settings

__all__ = ["OnLog", "TrainingSettings", "fine_tune", "training_settings"]


def fine_tune(
    features: Path,
    out: Path,
    training: dict[str, Any],
    on_log: OnLog | None = None,
    run_id: str | None = None,
) -> ModelDocument:
    """Train the family that the features were extracted for, and write the model into `out`.

    A run that is killed leaves checkpoints behind; called again with the same inputs it goes on from the last
    one and ends where an undisturbed run would have. Several GPUs are used with one process each.

    Args:
        features: a features artifact.
        out: folder for the family's native files and `genreflow.json`.
        training: what differs from the defaults of engine and family (see `TrainingSettings`).
        on_log: called with the optimiser step and epoch, seconds, and loss, learning_rate, grad_norm or
            eval_loss, eval_accuracy (both clip-level), eval_window_loss, eval_window_accuracy.
        run_id: the MLflow run that this training belongs to, kept in the document.

    Raises:
        SettingsError: a training setting does not exist or does not fit.
        TrainingError: there is nothing to learn from, or the loss is no longer a number.
    """
    from genreflow.training import engine, launch

    processes = launch.processes_wanted(training)
    if processes > 1:
        return launch.fine_tune(Path(features), Path(out), training, on_log, run_id, processes)
    return engine.fine_tune(Path(features), Path(out), training, on_log, run_id)
