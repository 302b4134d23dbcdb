"""The reference of settings, docs/settings.md, written from the settings' own types by `make settings`."""

import ast
import inspect
import json
import re
import sys
import textwrap
from typing import Any

from genreflow.artifacts import Frozen
from genreflow.families import FAMILIES, family
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
    sections = section_types(family(FAMILIES[0]).settings_type)
    for section, kind in sections.items():
        if section == "model":
            for name in FAMILIES:
                parts += _section("model", family(name).settings_type, f", family `{name}`")
        else:
            parts += _section(section, kind)
        if section == "training":
            parts.append(_families_defaults())
    return "\n".join(parts)


def descriptions(kind: type[Frozen]) -> dict[str, str]:
    """The docstring under each setting of a type, and of those that it is derived from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[: kind.__mro__.index(Frozen)]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                found[statement.target.id] = " ".join(str(following.value.value).split())
    return found


def _section(section: str, kind: type[Frozen], which: str = "") -> list[str]:
    said, schema = descriptions(kind), kind.model_json_schema()["properties"]
    rows = []
    for name, field in kind.model_fields.items():
        default = _default(field.get_default(call_default_factory=True))
        rows.append(f"| `{section}.{name}` | {_type(schema[name])} | {default} | {_cell(said[name])} |")
    title = f"## {section}{which}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n"
    return [title, "| setting | type | default | |", "|---|---|---|---|", *rows, ""]


def _families_defaults() -> str:
    encoder = family("encoder")
    kinds: dict[str, dict[str, Any]] = {
        f"`encoder`, `model.method` `{method}`": encoder.training_defaults(
            encoder.settings_type.model_validate({"method": method})
        )
        for method in ("fine_tune", "probe", "probe_then_fine_tune")
    }
    scratch = encoder.settings_type.model_validate({"from_scratch": {}})
    kinds["`encoder`, `model.from_scratch`"] = encoder.training_defaults(scratch)
    other = family("mfcc_cnn")
    kinds["`mfcc_cnn`"] = other.training_defaults(other.settings_type())
    lines = [
        f"- {kind}: " + ", ".join(f"`{name}` {json.dumps(value)}" for name, value in values.items())
        for kind, values in kinds.items()
    ]
    return "\n".join(["Of these the families change:", "", *lines, ""])


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
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
