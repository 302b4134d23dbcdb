"""Registering: everything on the version, once a content, and nothing half-registered."""

import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from candidates import Candidate
from corpora import split_of
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from genreflow import registry
from genreflow.core import home
from genreflow.core.documents import PackagedDocument
from genreflow.core.errors import ModelError, RegistryError

Make = Callable[..., Candidate]


def client() -> MlflowClient:
    return MlflowClient(home.tracking_uri())


def register(candidate: Candidate, run_id: str | None = None) -> registry.Registered:
    return registry.register(
        candidate.packaged, candidate.evaluation, candidate.corpus, split_of(candidate.corpus), run_id
    )


def wav(seconds: float = 1.0) -> bytes:
    file = io.BytesIO()
    soundfile.write(
        file, np.random.default_rng(0).normal(size=int(8_000 * seconds)) * 0.1, 8_000, format="WAV"
    )
    return file.getvalue()


def test_a_version_trained_on_every_clip_shows_no_figure(candidate: Make) -> None:
    register(candidate(evaluation={"seen_clips": 290, "protocol": "all"}))
    version = registry.version("1")
    assert version.tags["accuracy"] == "not measured"
    assert "accuracy" not in version.metrics
    page = client().get_model_version(registry.MODEL_NAME, "1").description
    assert page.startswith("Not measured: all 290 clips were trained on.")
    assert "| not measured" in client().get_registered_model(registry.MODEL_NAME).description


def test_a_version_says_what_it_is_how_good_and_on_what_data(candidate: Make) -> None:
    made = candidate(accuracy=0.81)
    run_id = registry.open_run("genreflow", {"family": "encoder"})
    registered = register(made, run_id)
    assert registered == registry.Registered("1", True, made.digest)

    version = registry.version("1")
    assert version.run_id == run_id
    assert version.aliases == ()
    assert version.metrics["accuracy"] == pytest.approx(0.81)
    assert version.metrics["recall_jazz"] == pytest.approx(0.81)
    expected = {
        "digest": made.digest,
        "accuracy": "0.8100",
        "macro_f1": "0.8000",
        "corpus_fingerprint": "c0" * 32,
        "protocol": "fault-filtered",
        "synthetic": "false",
        "leaky": "false",
        "family": "encoder",
        "backbone": "ntu-spml/distilhubert",
        "decision": "none yet",
    }
    assert expected.items() <= version.tags.items()
    assert json.loads(version.tags["accuracy_ci95"]) == pytest.approx([0.76, 0.85])

    description = client().get_model_version(registry.MODEL_NAME, "1").description.replace("\u00a0", " ")
    for words in (
        "Accuracy 81.0 % on 290 test clips",
        "76.0 % to 85.0 %",
        "443 clips to train on",
        "| jazz    | 29    |",
        run_id,
    ):
        assert words in description


def test_the_run_gets_report_lineage_and_figures(candidate: Make) -> None:
    run_id = registry.open_run("genreflow", {"family": "encoder"})
    register(candidate(), run_id)
    run = client().get_run(run_id)
    assert run.data.metrics["test/macro_f1"] == pytest.approx(0.79)
    assert {"evaluation.json", "report.html", "plots"} <= {
        Path(file.path).name for file in client().list_artifacts(run_id, "evaluation")
    }
    inputs = {
        (entry.tags[0].value, entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs
    }
    assert inputs == {
        ("training", "gtzan, training split", "c0" * 16),
        ("evaluation", "gtzan, test split", "c0" * 16),
    }
    assert run.outputs.model_outputs


def test_the_same_content_is_registered_once(candidate: Make) -> None:
    made = candidate()
    assert register(made).created
    assert register(made) == registry.Registered("1", False, made.digest)
    assert len(registry.versions()) == 1


def test_what_fails_leaves_nothing_behind_and_a_retry_finishes(
    candidate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run_id = candidate(), registry.open_run("genreflow", {})

    def broken(*_: object, **__: object) -> None:
        raise MlflowException("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", broken)
        with pytest.raises(RegistryError, match="could not register the model: the disk is full"):
            register(made, run_id)
    assert registry.versions() == []
    experiment = client().get_run(run_id).info.experiment_id
    assert client().search_logged_models([experiment]) == []
    assert register(made, run_id).created


def test_a_damaged_package_is_refused(candidate: Make) -> None:
    made = candidate()
    (made.packaged / "openvino" / "model.bin").write_bytes(b"other weights")
    with pytest.raises(ModelError, match="altered"):
        register(made)
    assert registry.versions() == []


def test_an_evaluation_of_another_model_or_corpus_is_refused(candidate: Make) -> None:
    with pytest.raises(RegistryError, match="another model"):
        register(
            Candidate(
                candidate(0).packaged,
                candidate(1, model={"features_fingerprint": "x"}).evaluation,
                candidate(2).corpus,
            )
        )
    with pytest.raises(RegistryError, match="another model"):
        register(Candidate(candidate(4).packaged, candidate(5).evaluation, candidate(6).corpus))
    with pytest.raises(RegistryError, match="another corpus"):
        register(candidate(3, corpus={"fingerprint": "d0" * 32}))
    assert registry.versions() == []


def test_a_training_run_that_this_store_does_not_know_gets_a_run_here(candidate: Make) -> None:
    register(candidate(), "0123456789abcdef0123456789abcdef")
    version = registry.version("1")
    assert version.run_id
    run = client().get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["genreflow.trained_in_run"] == "0123456789abcdef0123456789abcdef"
    assert run.data.params["training.epochs"] == "12"


def test_optimistic_figures_have_a_warning(candidate: Make) -> None:
    model = {
        "synthetic": True,
        "leaky": True,
        "leak_reason": "clips of one artist lie on both sides.",
        "pretrained": None,
        "protocol": "random",
    }
    register(candidate(model=model, corpus={"synthetic": True}))
    version = client().get_model_version(registry.MODEL_NAME, "1")
    for words in (
        "**Synthetic.**",
        "says nothing about real music",
        "**Leaky.**",
        "clips of one artist",
        "**From scratch.**",
    ):
        assert words in version.description
    assert version.tags["synthetic"] == version.tags["leaky"] == "true"
    assert version.tags["backbone"] == "none (from scratch)"


def test_many_genres_still_fit_the_description(candidate: Make) -> None:
    genres = tuple(f"a genre with quite a long name {index:03d}" for index in range(120))
    register(candidate(model={"genres": genres}, corpus={"genres": genres}))
    description = client().get_model_version(registry.MODEL_NAME, "1").description
    assert len(description) <= 5000
    assert "too long for this page" in description


def test_the_registered_model_answers_audio_through_mlflow(candidate: Make) -> None:
    import mlflow

    made = candidate()
    register(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri())
        served = mlflow.pyfunc.load_model(f"models:/{registry.MODEL_NAME}/1")
        answers = served.predict(pd.DataFrame({"audio": [wav(), wav(0.1)]}))
        with pytest.raises(MlflowException, match="Row 0"):
            served.predict(pd.DataFrame({"audio": [b"<html>not audio</html>"]}))
    genres = PackagedDocument.read(made.packaged).model.genres
    assert list(answers.columns) == [
        "genre",
        "confidence",
        "unsure",
        "reason",
        *(f"p_{genre}" for genre in genres),
    ]
    probabilities = answers.filter(like="p_").to_numpy()
    assert probabilities.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert answers["genre"].tolist() == [genres[index] for index in probabilities.argmax(axis=1)]
    assert answers["confidence"].to_numpy() == pytest.approx(probabilities.max(axis=1))


def test_the_signature_names_the_column_and_every_genre(candidate: Make) -> None:
    from mlflow.models import get_model_info

    register(candidate())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri())
        info = get_model_info(f"models:/{registry.MODEL_NAME}/1")
    assert [(column.name, column.type.name) for column in info.signature.inputs] == [("audio", "binary")]
    assert info.signature.outputs.input_names()[:5] == ["genre", "confidence", "unsure", "reason", "p_blues"]
    assert info.saved_input_example_info is not None


def test_the_same_content_registered_twice_at_once_is_one_version(candidate: Make, tmp_path: Path) -> None:
    made = candidate()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom genreflow import registry\n"
        "registry.versions()\n"  # everything is loaded
        "mine, other, *folders = map(Path, sys.argv[1:])\nmine.touch()\n"
        "while not other.exists(): time.sleep(0.005)\n"
        "done = registry.register(*folders, None)\nprint(done.version, done.created)"
    )
    gates = [str(tmp_path / name) for name in ("a", "b")]
    folders = [str(made.packaged), str(made.evaluation), str(made.corpus), str(split_of(made.corpus))]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *order, *folders], stdout=subprocess.PIPE, text=True)
        for order in (gates, gates[::-1])
    ]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sorted(said) == [["1", "False"], ["1", "True"]]
    assert [version.version for version in registry.versions()] == ["1"]
    experiment = client().get_experiment_by_name("genreflow")
    assert experiment is not None
    assert len(client().search_logged_models([experiment.experiment_id])) == 1


def test_registering_and_fetching_do_not_change_the_environment_of_the_process(candidate: Make) -> None:
    """Other threads read it, and processes that they start inherit it."""
    made = candidate()
    code = (
        "import sys\nfrom pathlib import Path\nfrom genreflow import registry\n"
        "registry.versions()\n"  # MLflow's own settings are made when it is imported
        "changes = []\n"
        "def hook(event, arguments):\n"
        "    if event in ('os.putenv', 'os.unsetenv'): changes.append(arguments)\n"
        "sys.addaudithook(hook)\n"
        "registry.register(*map(Path, sys.argv[1:]), None)\n"
        "assert registry.fetch('1').is_dir()\n"
        "print([one for one in changes if one[0].startswith((b'MLFLOW', b'GENREFLOW'))])"
    )
    folders = map(str, (made.packaged, made.evaluation, made.corpus, split_of(made.corpus)))
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_a_version_whose_logged_model_is_named_by_its_source_alone_is_found_and_fetched(
    candidate: Make,
) -> None:
    """As versions up to 0.1.0 are."""
    made = candidate()
    register(made)
    client().delete_model_version_tag(registry.MODEL_NAME, "1", "logged_model")
    (model,) = client().search_logged_models([client().get_experiment_by_name("genreflow").experiment_id])
    with sqlite3.connect(home.tracking_uri().removeprefix("sqlite:///")) as database:
        database.execute("UPDATE model_versions SET source = ?", (f"models:/{model.model_id}",))
    assert registry.version("1").metrics["accuracy"] == pytest.approx(0.8)
    assert registry.fetch("1").name == made.digest
    assert not register(made).created
