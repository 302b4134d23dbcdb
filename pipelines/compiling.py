"""Any of the pipelines, compiled for Kubeflow by its settings."""

from pathlib import Path

from pipelines.comparison_settings import ComparisonSettings
from pipelines.settings import RunSettings


def compile_pipeline(path: Path, settings: RunSettings | ComparisonSettings) -> str:
    """Write the pipeline of these settings as YAML.

    Returns:
        Its name.

    Raises:
        SettingsError: a variable of the pods names an MLflow store on this machine.
    """
    if isinstance(settings, ComparisonSettings):
        from pipelines import comparison

        comparison.compile_to(path, settings)
        return comparison.NAME
    from pipelines import training

    training.compile_to(path, settings)
    return training.NAME
