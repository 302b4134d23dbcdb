"""The reference of settings: complete, and what the types say now."""

import pytest

from components.image import ROOT
from genreflow.families import built_in, family
from pipelines.reference import settings_reference
from pipelines.settings import known_keys, section_types


def test_the_reference_is_current() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == settings_reference(), "run make settings"


@pytest.mark.parametrize("name", built_in())
def test_every_setting_is_described_and_in_the_reference(name: str) -> None:
    kinds = section_types(family(name))
    silent = {
        f"{section}.{key}"
        for section, kind in kinds.items()
        for key, field in kind.model_fields.items()
        if not field.description
    }
    assert silent == set()
    reference = settings_reference()
    for key in known_keys(family(name)):
        assert "." not in key or f"| `{key}` |" in reference
