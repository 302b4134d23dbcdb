"""The page's folder of uploads, in which another task deletes meanwhile."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genreflow.core.errors import RequestError
from serving.gradio_hardening import delete_old
from serving.limits import Limits
from serving.request_guard import RequestGuardMiddleware

NEVER_OLD, ALWAYS_OLD = 0.0, 1e12


async def nothing(*_: object) -> None:
    """An application that is never asked."""


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders with an upload each; the first is deleted between its finding and its listing."""
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "song.wav").write_bytes(b"RIFF" * 100)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    scandir: Callable[..., Any] = os.scandir

    def late(folder: Any = ".") -> Any:
        if str(folder) == str(tmp_path / "gone"):
            shutil.rmtree(folder, ignore_errors=True)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", late)
    return tmp_path


def test_an_upload_is_received_while_another_is_deleted(uploads: Path) -> None:
    RequestGuardMiddleware(nothing, Limits())._check_room()


def test_uploads_that_fill_the_folder_are_counted_all_the_same(uploads: Path) -> None:
    full = RequestGuardMiddleware(nothing, Limits())
    full.limits = SimpleNamespace(uploads_megabytes=0)  # type: ignore[assignment]
    with pytest.raises(RequestError, match="keeps too many uploads"):
        full._check_room()


def test_old_uploads_are_deleted_though_one_is_gone_meanwhile(uploads: Path) -> None:
    delete_old(uploads, NEVER_OLD)
    assert (uploads / "kept" / "song.wav").exists()
    delete_old(uploads, ALWAYS_OLD)
    assert list(uploads.iterdir()) == []
