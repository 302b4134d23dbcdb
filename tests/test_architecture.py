"""The direction of imports, and what the serving core may load."""

import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import grimp


def test_classifying_needs_neither_torch_nor_transformers_nor_mlflow_nor_kfp() -> None:
    code = (
        "import sys, genreflow, genreflow.inference.loading, genreflow.features\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'kfp', 'bentoml', 'pandas', 'sklearn', 'datasets'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_extraction_and_fine_tuning_from_arrays_need_neither_datasets_nor_arrow_nor_scipy() -> None:
    code = (
        "import sys\n"
        "for name in ('datasets', 'pyarrow', 'scipy', 'sklearn', 'joblib', 'openvino', 'av', 'boto3'):\n"
        "    sys.modules[name] = None\n"
        "import genreflow.families.encoder, genreflow.extraction, genreflow.training.engine\n"
        "import genreflow.fitting.fine_tuning, genreflow.inference.backends.pytorch\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = grimp.build_graph("genreflow", "components", "serving", "pipelines")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_every_module_of_the_library_is_in_a_layer() -> None:
    settings = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one.get("containers") == ["genreflow"])
    assert contract["type"] == "layers"
    assert contract["exhaustive"]
    named = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    modules = grimp.build_graph("genreflow").find_children("genreflow")
    assert named == {module.removeprefix("genreflow.") for module in modules}
