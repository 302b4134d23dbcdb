"""The model families: how each hears, what it is, how it learns. One file a family."""

from genreflow.errors import SettingsError
from genreflow.families.base import Family, FamilySettings

__all__ = ["FAMILIES", "Family", "FamilySettings", "family"]

FAMILIES: tuple[str, ...] = ("encoder", "mfcc_cnn")


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        SettingsError: there is no such family.
    """
    if name == "encoder":
        from genreflow.families.encoder import Encoder

        return Encoder()
    if name == "mfcc_cnn":
        from genreflow.families.mfcc_cnn import MfccCnn

        return MfccCnn()
    raise SettingsError(f"There is no family {name!r}; there are {', '.join(FAMILIES)}.")
