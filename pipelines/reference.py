"""The reference of settings, docs/settings.md, written from the settings' own types by `make settings`."""

import inspect
import json
import re
import sys
from typing import Any

from genreflow.core.documents import Frozen
from genreflow.families import built_in, family
from genreflow.fitting import Family
from pipelines.settings import section_types

INTRODUCTION = """\
# Settings

Everything that `--set section.key=value` (as `--set training.epochs=3`) and a profile's sections reach.
Defaults give way to the family's own, these to the profile ([pipelines/profiles](../pipelines/profiles)), to
the options, to `--set`. Outside a section stand `source`, `family`, `backbone` and `experiment`: see
[cli.md](cli.md).
This file is written by `make settings`.
"""
WORDS = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def settings_reference() -> str:
    """The whole reference, as Markdown."""
    parts = [INTRODUCTION]
    kinds = [family(name) for name in built_in()]
    for section, type_ in section_types(kinds[0]).items():
        if section == "model":
            for kind in kinds:
                parts += _section("model", kind.settings_type, f", family `{kind.name}`")
        elif section == "training":
            for training in dict.fromkeys(kind.training_type for kind in kinds):
                of_type = [kind for kind in kinds if kind.training_type is training]
                names = ", ".join(f"`{kind.name}`" for kind in of_type)
                parts += _section("training", training, f", of {names}")
                parts.append(_families_defaults(of_type))
        else:
            parts += _section(section, type_)
    return "\n".join(parts)


def _section(section: str, kind: type[Frozen], which: str = "") -> list[str]:
    schema = kind.model_json_schema()["properties"]
    rows = []
    for name, field in kind.model_fields.items():
        default = _default(field.get_default(call_default_factory=True))
        description = _cell(" ".join((field.description or "").split()))
        rows.append(f"| `{section}.{name}` | {_type(schema[name])} | {default} | {description} |")
    title = f"## {section}{which}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n"
    return [title, "| setting | type | default | |", "|---|---|---|---|", *rows, ""]


def _families_defaults(kinds: list[Family]) -> str:
    """What families change of the defaults of their training settings."""
    changed: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        variants = {f"`{kind.name}`, {name}": given for name, given in kind.variants.items()}
        for name, given in (variants or {f"`{kind.name}`": {}}).items():
            changed[name] = kind.training_defaults(kind.settings_type.model_validate(given))
    lines = [
        f"- {name}: " + ", ".join(f"`{key}` {json.dumps(value)}" for key, value in values.items())
        for name, values in changed.items()
        if values
    ]
    return "\n".join(["Changed defaults:", "", *lines, ""]) if lines else ""


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if "$ref" in schema:
        return "mapping"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object":
        return "mapping"
    bounds = [f"{sign} {schema[bound]:g}" for bound, sign in BOUNDS.items() if bound in schema]
    return " ".join([WORDS[schema["type"]], ", ".join(bounds)]).strip()


def _default(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"`{_cell(shown)}`"


def _cell(text: str) -> str:
    return re.sub(r"\bNone\b", "null", text).replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(settings_reference())
