"""The direction of imports, and what the serving core may load."""

import subprocess
import sys
from graphlib import TopologicalSorter

import grimp


def test_classifying_needs_neither_torch_nor_transformers_nor_mlflow_nor_kfp() -> None:
    code = (
        "import sys, genreflow, genreflow.runtime, genreflow.features\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'kfp', 'bentoml', 'pandas', 'sklearn', 'datasets'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = grimp.build_graph("genreflow", "components", "serving", "pipelines")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
