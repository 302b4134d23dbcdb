"""Unpacking a frozen state into a folder: the registry names its own place again, wherever that is."""

import sqlite3
import tarfile
from pathlib import Path

ARCHIVE = "state.tar.xz"
SQL = "mlflow.sql"
ROOT, ROOT_URI, CODE = "@ROOT@", "@ROOT_URI@", "@CODE@"
"""What stands in the registry and MLflow's files for the folder of the state, its URI, and the checkout."""


def unpack(frozen: Path, root: Path) -> None:
    """Unpack `frozen/state.tar.xz`: `root/home` becomes a GENREFLOW_HOME, `root/bentoml` a BENTOML_HOME."""
    root = root.resolve()
    with tarfile.open(frozen / ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    for path in root.rglob("MLmodel"):
        path.write_text(_placed(path.read_text(), root, str(root)))
    script = root / "home" / SQL
    connection = sqlite3.connect(root / "home" / "mlflow.db")
    connection.executescript(_placed(script.read_text(), root, str(root).replace("'", "''")))
    connection.close()
    script.unlink()


def _placed(text: str, root: Path, path: str) -> str:
    return text.replace(ROOT_URI, root.as_uri()).replace(ROOT, path).replace(CODE, "/genreflow")
