"""Compiled pipelines without what only readers of the source need: Kubernetes keeps it of every step.

A workflow's object holds a step's component, the source of its function and all that it is given six times,
in the states of the step's nodes, and etcd takes 1.5 MB an object.
"""

import ast
import re
from pathlib import Path
from typing import Any

import yaml

SCRIPT, SOURCE = 2, 3
"""Positions of the shell script and of the function's source in a lightweight component's command."""


def write_compactly(path: Path) -> None:
    """Write a compiled pipeline again, without its functions' docstrings and its inputs' descriptions."""
    text = path.read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    spec, *platforms = yaml.safe_load_all(text)
    for component in spec["components"].values():
        for definitions in ("inputDefinitions", "outputDefinitions"):
            for kind in component.get(definitions, {}).values():
                for definition in kind.values():
                    definition.pop("description", None)
    for executor in spec["deploymentSpec"]["executors"].values():
        command = executor["container"]["command"]
        # kfp writes its script with the indentation of its own source
        command[SCRIPT] = re.sub(r"(?<=\S) +", " ", command[SCRIPT])
        command[SOURCE] = _without_docstrings(command[SOURCE])
    documents: list[dict[str, Any]] = [spec, *platforms]
    path.write_text(header + yaml.safe_dump_all(documents, sort_keys=True, width=1_000_000))


def _without_docstrings(source: str) -> str:
    """The same functions without docstrings, comments, and indentation beyond one blank."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    # no text of `ast.unparse` runs over lines, so that all blanks at their beginnings are indentation
    return re.sub(r"^( {4})+", lambda blanks: " " * (len(blanks.group()) // 4), ast.unparse(tree), flags=re.M)
