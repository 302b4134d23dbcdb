"""Processes of genreflow that are killed, or interrupted, at a place of one's choice."""

import json
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

VARIABLE = "GENREFLOW_TEST_AFTER_IMPORT"
SITE = f'''
import json, os, sys
from importlib.machinery import PathFinder

class AfterImport:
    """Runs a text in a module's own namespace once that module is loaded."""

    texts = json.loads(os.environ.get("{VARIABLE}", "{{}}"))

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in cls.texts:
            return None
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module
        def load_and_run(module):
            load(module)
            exec(cls.texts[name], module.__dict__)
        spec.loader.exec_module = load_and_run
        return spec

sys.meta_path.insert(0, AfterImport)
'''
KILL = "def {function}(*_, **__):\n    import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)\n"


def changed(folder: Path, texts: dict[str, str]) -> dict[str, str]:
    """The environment in which modules are changed after their import, in every process of Python."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": str(folder), VARIABLE: json.dumps(texts)}


def killed_at(place: str) -> dict[str, str]:
    """What makes the process that calls `module:function` die there."""
    module, _, function = place.partition(":")
    return {module: KILL.format(function=function)}


def interrupted(
    line: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float
) -> list[str]:
    """A command, interrupted once a line of its stderr matches the expression `line`: the lines so far."""
    lines = []
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    ) as process:
        assert process.stderr is not None
        try:
            for found in process.stderr:
                lines.append(found.rstrip())
                if re.fullmatch(line, lines[-1]):
                    break
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=timeout)[1]
        finally:
            process.kill()
    assert process.returncode == 130, [*lines, rest]
    return lines
