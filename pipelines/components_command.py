"""The components as files, for pipelines of other teams: each as KFP's YAML with a README of its own."""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import docstring_parser
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from components import (
    build,
    compare,
    evaluate,
    extract_features,
    fine_tune,
    ingest,
    package,
    promote,
    register,
    resolve,
    resolve_candidates,
    split,
    train_candidate,
)
from components.image import BUILD_IMAGE, IMAGE, ROOT, step_image
from genreflow.core.errors import SettingsError
from pipelines.steps import COMPARISON_STEPS, STEPS, step

FILE, README = "component.yaml", "README.md"
MODULES: tuple[ModuleType, ...] = (
    resolve, ingest, split, extract_features, fine_tune, package, evaluate, register, promote, build,
    resolve_candidates, train_candidate, compare
)  # fmt: skip
OF_A_COMPARISON = tuple(one.name for one in COMPARISON_STEPS if one not in STEPS)
TYPES = {
    "String": "text",
    "Integer": "integer",
    "Float": "number",
    "Boolean": "true or false",
    "List": "list",
    "Dict": "mapping",
}
EXAMPLES: dict[str, Any] = {
    "source": "/data/my-music",
    "family": "linear",
    "device": "auto",
    "batch": 8,
    "experiment": "my-experiment",
    "runtime": "auto",
    "export": True,
    "candidates": '[{"family": "linear", "model": {}}, {"family": "mfcc_cnn", "model": {}}]',
    "folds": 0,
    "also_test": "s3://my-bucket/other-music",
    "further": '{"also_test": "s3://my-bucket/other-music", "robustness": true}',
}
"""Values of parameters in the examples; of the others, settings as JSON, `{}` leaves every default."""
EXAMPLES_OF = {
    "train_candidate": {
        "settings": '{"name": "linear", "family": "linear", "model": {}, "training": {}}',
    }
}
"""The same of one component."""
SHOWN = ("candidate_1", "candidate_2")
"""Optional artifacts that the examples have all the same."""
FROM_OTHERS = ("run_id", "version")
"""Parameters that only a pipeline's own run knows: the example's pipeline has them, too."""
INTRODUCTION = """\
# Components of genreflow

Steps of genreflow's pipelines, each for a pipeline of your own: `component.yaml` is what KFP loads,
`README.md` says what goes in and comes out, with an example that compiles. They run in images which hold the
code they were written from, `build` in `{build_image}` and the others in
`{image}`; nothing is installed when they start. This folder is written by
`genreflow compile --components DIR`.

| component | |
|---|---|
{rows}

Of a comparison of families, which shares `ingest`, `split`, `extract_features` and `build`:

| component | |
|---|---|
{comparison_rows}

`train_candidate` is `fine_tune`, `package` and `evaluate` in one step, `compare` has `register` and `promote`
in it: do not put them behind each other.

What they need of a pod:
- `fine_tune`, `register`, `promote`, `build`, `train_candidate` and `compare` need `MLFLOW_TRACKING_URI`
  (`task.set_env_variable`).
- `resolve`, `resolve_candidates` and `ingest` read `source`: a folder has to lie on a claim that is mounted
  in each (`kubernetes.mount_pvc`), a bucket needs `AWS_ENDPOINT_URL` and credentials
  (`kubernetes.use_secret_as_env`). The same holds of `also_test`, which `compare` reads as well.
- {uncached} depend on what changes outside the pipeline: switch
  caching off for them (`task.set_caching_options(False)`).
- The artifacts are folders of genreflow's own; each names what it was made from.

docs/kubeflow.md of genreflow describes the same settings for the whole pipeline, docs/settings.md what the
JSON texts may hold.
"""


def all_components() -> dict[str, BaseComponent]:
    """The components by the names of their steps, in the pipelines' order."""
    found = {module.__name__.rpartition(".")[2]: module for module in MODULES}
    return {name: getattr(module, name) for name, module in found.items()}


def write_components(folder: Path) -> list[Path]:
    """Write every component into a folder of its own, and an index of them.

    Returns:
        The files of the components.

    Raises:
        SettingsError: the folder is the package of the components.
    """
    if folder.resolve() == ROOT / "components":
        raise SettingsError(f"{folder} is genreflow's own package: name another folder.")
    written = []
    for name, component in all_components().items():
        path = folder / name / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(component, package_path=str(path))
        own = BUILD_IMAGE if name == "build" else IMAGE
        path.write_text(path.read_text().replace(f"image: {own}", f"image: {step_image(name)}"))
        (path.parent / README).write_text(readme(name, component))
        written.append(path)
    (folder / README).write_text(index())
    return written


def index() -> str:
    """The README of all components, as Markdown."""
    found = all_components()
    rows = {
        name: f"| [{name}]({name}/{README}) | {_document(component).short_description} |"
        for name, component in found.items()
    }
    uncached = [f"`{name}`" for name in found if not step(name).cached]
    return INTRODUCTION.format(
        image=step_image("resolve"),
        build_image=step_image("build"),
        rows="\n".join(row for name, row in rows.items() if name not in OF_A_COMPARISON),
        comparison_rows="\n".join(rows[name] for name in OF_A_COMPARISON),
        uncached=f"{', '.join(uncached[:-1])} and {uncached[-1]}",
    )


def readme(name: str, component: BaseComponent) -> str:
    """The README of one component, as Markdown: all of it from the component itself."""
    document, spec = _document(component), component.component_spec
    described = {parameter.arg_name: parameter.description or "" for parameter in document.params}
    inputs = [
        (key, _type(given.type), _default(given), _description(key, described))
        for key, given in (spec.inputs or {}).items()
    ]
    returned = document.returns.description or "" if document.returns else ""
    outputs = [
        (key, _type(made.type), _description(key, described, returned)) for key, made in spec.outputs.items()
    ]
    cached = (
        ""
        if step(name).cached
        else "\nIt depends on what changes outside the pipeline: switch KFP's cache off.\n"
    )
    return "\n".join(
        [
            f"# {name}",
            "",
            document.description or "",
            cached,
            f"Image: `{step_image(name)}`",
            "",
            "## Inputs",
            "",
            *_table(("name", "type", "default", ""), inputs),
            "",
            "## Outputs",
            "",
            *_table(("name", "type", ""), outputs),
            "",
            "## In a pipeline of your own",
            "",
            "Run from the folder that holds all components. Artifacts are imported here from a bucket; in a "
            "pipeline of your own they are outputs of other steps.",
            "",
            "```python",
            example(name, component),
            "```",
            "",
        ]
    )


def example(name: str, component: BaseComponent) -> str:
    """A pipeline, as Python, with this component in it."""
    inputs = component.component_spec.inputs or {}
    resolver = "resolve_candidates" if name in OF_A_COMPARISON else "resolve"
    resolved = all_components()[resolver].component_spec
    needed = {}
    for key in inputs:
        of = next((one for one in (key, f"{key}_1") if one in resolved.outputs), None)
        if of is not None:
            needed[key] = of
    parameters = ", ".join(f"{key}: str" for key in inputs if key in FROM_OTHERS)
    lines = ["from kfp import compiler, components, dsl", ""]
    loaded = [resolver, name] if needed else [name]
    lines += [f'{one} = components.load_component_from_file("{one}/{FILE}")' for one in loaded]
    lines += ["", ""]
    lines += [f'@dsl.pipeline(name="with-{name.replace("_", "-")}")', f"def my_pipeline({parameters}):"]
    if needed:
        given_to = {key: one for key, one in resolved.inputs.items() if not one.optional}
        lines += _call("resolved", resolver, {key: _value(resolver, key) for key in given_to})
        lines.append("    resolved.set_caching_options(False)")
    for key, given in inputs.items():
        if _is_artifact(given.type) and (key in SHOWN or not given.optional):
            lines += [
                f"    {key} = dsl.importer(",
                f'        artifact_uri="s3://my-bucket/{key}", artifact_class=dsl.{_type(given.type)}',
                "    )",
            ]
    arguments = {}
    for key, given in inputs.items():
        if key in needed:
            arguments[key] = f'resolved.outputs["{needed[key]}"]'
        elif _is_artifact(given.type):
            arguments |= {key: f"{key}.output"} if key in SHOWN or not given.optional else {}
        else:
            arguments[key] = key if key in FROM_OTHERS else _value(name, key)
    lines += _call("task", name, arguments)
    if not step(name).cached:
        lines.append("    task.set_caching_options(False)")
    lines += ["", "", 'compiler.Compiler().compile(my_pipeline, "my_pipeline.yaml")']
    return "\n".join(lines)


def _call(target: str, function: str, arguments: dict[str, str]) -> list[str]:
    given = [f"        {key}={value}," for key, value in arguments.items()]
    return [f"    {target} = {function}(", *given, "    )"]


def _value(component: str, parameter: str) -> str:
    """A value for an example, as Python."""
    value = (EXAMPLES | EXAMPLES_OF.get(component, {})).get(parameter, "{}")
    return f'"{value}"' if isinstance(value, str) and '"' not in value else repr(value)


def _description(key: str, described: dict[str, str], otherwise: str = "") -> str:
    """What the component's docstring says of an input or output; of several of a kind it describes the first.

    Args:
        otherwise: what it says of the outputs that it does not name.
    """
    base, _, number = key.rpartition("_")
    if key not in described and f"{base}_1" in described:
        return f"As `{base}_1`, of candidate {number}."
    return described.get(key, otherwise)


def _document(component: BaseComponent) -> docstring_parser.Docstring:
    return docstring_parser.parse(inspect.getdoc(component.python_func) or "")


def _is_artifact(kind: str) -> bool:
    return kind.startswith("system.")


def _type(kind: str) -> str:
    """`system.Dataset@0.0.1` as `Dataset`; the type of a parameter in a reader's words."""
    artifact = re.fullmatch(r"system\.(\w+)@.*", kind)
    return artifact[1] if artifact else TYPES.get(kind, kind)


def _default(given: Any) -> str:
    if given.default is not None:
        return f"`{given.default}`" if given.default != "" else "empty"
    return "none" if given.optional else "required"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [list(head)]
    lines += [["---"] * len(lines[0])]
    lines += [[f"`{name}`", *(" ".join(cell.split()) for cell in cells)] for name, *cells in rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
