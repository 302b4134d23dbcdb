"""The model families: what each is, how it is fitted, loaded and exported. A file or folder each."""

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from genreflow.core.errors import GenreflowError, SettingsError, one_line

if TYPE_CHECKING:
    from genreflow.fitting.contract import Family

__all__ = ["built_in", "families", "family"]

GROUP = "genreflow.families"
"""Entry points under which an installed distribution names families of its own."""


def built_in() -> tuple[str, ...]:
    """Names of the families that come with genreflow: the modules of this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


@cache
def families() -> tuple[str, ...]:
    """Names of all families: those that come with genreflow, then those that other distributions name."""
    own = built_in()
    others = {point.name for point in importlib.metadata.entry_points(group=GROUP)}
    return (*own, *sorted(others.difference(own)))


def family(name: str) -> "Family":
    """The family of that name.

    Raises:
        SettingsError: there is no such family.
        GenreflowError: another distribution's family cannot be loaded.
    """
    # imported here: the command line lists families without NumPy
    from genreflow.fitting.contract import Family

    if name in built_in():
        found: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
        return found
    for point in importlib.metadata.entry_points(group=GROUP, name=name):
        try:
            loaded = point.load()
        except Exception as error:  # whatever importing another distribution's module raises
            raise GenreflowError(
                f"The family {name} of {point.value} cannot be loaded: {one_line(error)}."
            ) from error
        if not isinstance(loaded, Family):
            raise GenreflowError(f"The entry point {GROUP}: {name} = {point.value} is not a Family.")
        return loaded
    raise SettingsError(f"There is no family {name!r}; there are {', '.join(families())}.")
