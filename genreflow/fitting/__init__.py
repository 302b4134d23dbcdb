"""Fitting: the contract of model families, their training settings, `fine_tune`, and calibration."""

from genreflow.fitting.contract import (
    RUN_SETTINGS,
    RUN_SETTINGS_VARIABLE,
    Family,
    FamilySettings,
    FitContext,
    FitResult,
    OnLog,
    Predict,
    TransformersForm,
    run_settings,
    training_settings,
)

__all__ = [
    "RUN_SETTINGS",
    "RUN_SETTINGS_VARIABLE",
    "Family",
    "FamilySettings",
    "FitContext",
    "FitResult",
    "OnLog",
    "Predict",
    "TransformersForm",
    "run_settings",
    "training_settings",
]
