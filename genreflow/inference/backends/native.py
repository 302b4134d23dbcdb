"""A family's native files as a `predict`: what backends that read them share."""

from pathlib import Path

from pydantic import ValidationError

from genreflow.core.documents import ModelDocument
from genreflow.core.errors import ModelError, SettingsError
from genreflow.inference.backends import Predict, backend
from genreflow.inference.parity import Precision


def load_native(folder: Path, document: ModelDocument, precision: Precision, device: str) -> Predict:
    """`predict` over the native files of `folder`.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        ModelError: what they need is not installed, or the files do not fit.
        SettingsError: the family's own runtime does not compute in that precision.
    """
    from genreflow.families import family

    kind = family(document.family)
    if precision == "int8":
        title = backend(kind.native_runtime).title
        raise SettingsError(f"{title} does not serve int8: use f32 or bf16, or the runtime openvino.")
    try:
        settings = kind.settings_type.model_validate(document.settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(
            f"{folder} was made by another version of genreflow: its setting "
            f"{'.'.join(map(str, first['loc']))} does not fit this one ({first['msg']}). Train it anew."
        ) from error
    return kind.load(folder, settings, document.genres, precision, device)
