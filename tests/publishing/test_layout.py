"""The published files of a model, where transformers answers otherwise than the package."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from candidates import write_packaged

from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import PublishError
from genreflow.publishing import layout


class _NoNumbers:
    """A model as transformers loads it, whose logits are all NaN."""

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> "_NoNumbers":
        return cls()

    def eval(self) -> "_NoNumbers":
        return self

    def __call__(self, inputs: torch.Tensor) -> Any:
        return SimpleNamespace(logits=torch.full((len(inputs), 2), torch.nan))


def test_a_form_for_transformers_that_answers_no_numbers_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_packaged(tmp_path / "packaged", 0, {})
    reference = np.zeros((3, 4), np.float32), np.full((3, 2), 0.5, np.float32)
    written = SimpleNamespace(export_transformers=lambda *_: "stock")
    monkeypatch.setattr(layout, "family", lambda _: written)
    monkeypatch.setattr(layout, "read_reference", lambda _: reference)
    monkeypatch.setattr(layout, "_model_class", lambda _: _NoNumbers)
    with pytest.raises(PublishError, match="gives other answers"):
        layout._for_transformers(PackagedDocument.read(tmp_path / "packaged"), tmp_path)
