"""The BentoML service over a packaged model."""

import os
import sys
from pathlib import Path


def _add_checkout_to_path() -> None:
    """Forget a `genreflow` imported from elsewhere: a bento is served with the code it was built from.

    `bentoml serve genreflow:<tag>` tries the name as a module first, and finds one where it is installed.
    """
    loaded = sys.modules.get("genreflow")
    if loaded is None or Path(str(loaded.__file__)).parent.parent == Path(__file__).parent.parent:
        return
    for name in list(sys.modules):
        if name == "genreflow" or name.startswith("genreflow."):
            del sys.modules[name]


_add_checkout_to_path()
# BentoML reports its use to its makers unless this is set
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
