"""The reference of settings: complete, and what the types say now."""

import pytest

from components.image import ROOT
from genreflow.families import FAMILIES, family
from pipelines.reference import descriptions, settings_reference
from pipelines.settings import known_keys, section_types


def test_the_reference_is_current() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == settings_reference(), "run make settings"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_setting_is_described_and_in_the_reference(name: str) -> None:
    kinds = section_types(family(name).settings_type)
    silent = {
        f"{section}.{key}"
        for section, kind in kinds.items()
        for key in kind.model_fields
        if key not in descriptions(kind)
    }
    assert silent == set()
    reference = settings_reference()
    for key in known_keys(family(name).settings_type):
        assert "." not in key or f"| `{key}` |" in reference
