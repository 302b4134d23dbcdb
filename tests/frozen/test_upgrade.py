"""The present code on the registry, the champion and the bento of version 0.1.0 (see README.md)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from servers import free_port, served
from services import CLI, Champion, Service, running
from unpacking import unpack

import genreflow
from genreflow import registry
from genreflow.audio import decode
from genreflow.core.digests import file_digest
from genreflow.core.documents import CorpusDocument, PackagedDocument
from genreflow.evaluation.document import EvaluationDocument
from genreflow.inference.answers import Classification
from genreflow.inference.loading import load_classifier
from genreflow.inference.package_files import read_reference
from genreflow.inference.parity import PARITY

FROZEN = Path(__file__).parent / "v0_1_0"
CODE_VERSION = "0.1.0+8ef1735f5975"
CHAMPION, BEFORE = "2", "1"
"""The champion, and the version that was champion before it."""
CLIPS = sorted((FROZEN / "clips").iterdir())
CLIP_NAMES = [path.name for path in CLIPS]
F32 = 1e-3
"""How far a logit may be from that of another processor."""
SERVED = PARITY["bf16"].probability_difference
"""How far a probability that is served may be: the golden one was served in bf16, others may be in f32."""
CANDIDATE = ["--source", "synthetic?clips=10&seconds=3&seed=7", "--family", "mfcc_cnn"]
CANDIDATE += ["--set", 'corpus.genres=["blues", "classical", "hiphop", "rock"]']
CANDIDATE += ["--set", "training.epochs=3", "--set", "gate.min_clips=5"]


def golden(name: str) -> Any:
    return json.loads((FROZEN / f"{name}.json").read_text())


@dataclass(frozen=True)
class State:
    """A frozen state, unpacked."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"GENREFLOW_HOME": str(self.root / "home"), "BENTOML_HOME": str(self.root / "bentoml")}

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """This process uses it."""
        for name, value in self.environment.items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def command(self, *arguments: str) -> str:
        """What `genreflow` prints."""
        environment = os.environ | self.environment
        done = subprocess.run([*CLI, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A state that no test changes; its folder's name has characters that SQL and URIs escape."""
    root = tmp_path_factory.mktemp("frozen") / "it's 100 % elsewhere"
    root.mkdir()
    unpack(FROZEN, root)
    return State(root)


@pytest.fixture
def state(unpacked: State, monkeypatch: pytest.MonkeyPatch, _own_home: None) -> State:
    unpacked.enter(monkeypatch)
    return unpacked


@pytest.fixture(scope="module")
def service(unpacked: State) -> Iterator[Service]:
    """The present `genreflow serve` over it."""
    expected = Classification("", 0.0, {}, "", 0.0, 0, None)
    champion = Champion(unpacked.root, CLIPS[0], expected, golden("logits")[CHAMPION]["digest"])
    with running(champion) as service:
        yield service


def test_the_versions_are_listed_as_they_were(state: State) -> None:
    expected = golden("models")
    found = [version.to_dict() for version in registry.versions()]
    assert [
        {name: value for name, value in one.items() if name in known}
        for one, known in zip(found, expected, strict=True)
    ] == expected


@pytest.mark.parametrize("name", ["pytorch", "openvino"])
@pytest.mark.parametrize("version", [CHAMPION, BEFORE])
def test_logits_are_as_they_were(state: State, version: str, name: str) -> None:
    expected = golden("logits")[version]
    folder = registry.fetch("champion" if version == CHAMPION else version)
    document = PackagedDocument.read(folder)
    assert document.digest == expected["digest"]
    assert list(document.model.genres) == expected["genres"]
    classifier = load_classifier(folder, runtime=name, precision="f32")
    inputs, probabilities = read_reference(folder)
    actual = {"reference": classifier.logits(inputs)}
    for clip in CLIPS:
        audio = decode(clip)
        actual[clip.name], starts = classifier.window_logits(audio.samples, audio.sample_rate)
        golden_clip = expected["runtimes"][name]["clips"][clip.name]
        assert starts == pytest.approx(golden_clip["starts"])
    of_runtime = expected["runtimes"][name]
    for what, logits in actual.items():
        figures = of_runtime["reference"] if what == "reference" else of_runtime["clips"][what]
        np.testing.assert_allclose(logits, figures["logits"], rtol=0, atol=F32, err_msg=what)
        shares = classifier.probabilities(logits)
        np.testing.assert_allclose(shares, figures["probabilities"], rtol=0, atol=F32, err_msg=what)
    assert of_runtime["reference"]["probabilities"] == pytest.approx(probabilities, abs=F32)


def check_reference(name: str, version: str) -> None:
    """The version of that name answers the reference windows as that version did."""
    folder = registry.fetch(name)
    inputs, _ = read_reference(folder)
    logits = load_classifier(folder, runtime="openvino", precision="f32").logits(inputs)
    figures = golden("logits")[version]["runtimes"]["openvino"]["reference"]
    np.testing.assert_allclose(logits, figures["logits"], rtol=0, atol=F32)


@pytest.mark.parametrize("clip", CLIPS, ids=CLIP_NAMES)
def test_the_champion_is_loaded_by_its_alias_and_classifies_as_it_did(state: State, clip: Path) -> None:
    answer = genreflow.load("champion").classify(clip)
    figures = golden("logits")[CHAMPION]["runtimes"]["openvino"]["clips"][clip.name]
    means = np.mean(figures["probabilities"], axis=0)
    assert list(answer.probabilities.values()) == pytest.approx(means.tolist(), abs=SERVED)


def test_what_it_was_trained_on_is_still_known(state: State) -> None:
    document = PackagedDocument.read(registry.fetch("champion"))
    corpus = CorpusDocument.read(state.root / "corpus")
    assert corpus.fingerprint == document.model.corpus_fingerprint
    assert 0 < len(document.model.train_clips) < corpus.clips
    (clip,) = (path for path in CLIPS if path.stem == "synthetic_trained_on")
    assert file_digest(clip) in document.model.train_clips


def test_its_evaluation_is_read(state: State) -> None:
    for entry in golden("models"):
        folder = state.root / "home" / "mlartifacts" / entry["run_id"] / "artifacts" / "evaluation"
        evaluation = EvaluationDocument.read(folder)
        assert evaluation.scalars() == pytest.approx(entry["metrics"])


def test_mlflow_loads_it_with_the_code_that_it_was_registered_with(state: State, tmp_path: Path) -> None:
    program = """
import json, sys
from pathlib import Path
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/genre-classifier@champion")
table = model.predict(pandas.DataFrame({"audio": [Path(name).read_bytes() for name in sys.argv[1:]]}))
from genreflow.artifacts import code_version
print(json.dumps([code_version(), table.to_dict("records")]))
"""
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{state.root / 'home' / 'mlflow.db'}"}
    argv = [sys.executable, "-c", program, *map(str, CLIPS)]
    done = subprocess.run(argv, cwd=tmp_path, env=os.environ | store, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code, rows = json.loads(done.stdout.splitlines()[-1])
    assert code == CODE_VERSION
    answers = golden("answers")["classify"]
    for name, row in zip(CLIP_NAMES, rows, strict=True):
        for genre, share in answers[name]["probabilities"].items():
            assert row[f"p_{genre}"] == pytest.approx(share, abs=SERVED)


def agrees(answer: Any, expected: Any, where: str = "") -> None:
    """The same JSON, numbers within what is served; what depends on the processor aside."""
    if isinstance(expected, dict):
        assert answer.keys() == expected.keys(), where
        for key in expected:
            agrees(answer[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(answer) == len(expected), where
        for number, (one, other) in enumerate(zip(answer, expected, strict=True)):
            agrees(one, other, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert answer == pytest.approx(expected, abs=SERVED), where
    elif where.endswith((".precision", ".genre", ".vote")):
        assert isinstance(answer, str), where
    else:
        assert answer == expected, where


def decides_alike(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same answer for a clip; where no other genre and no threshold is near, also the same decisions."""
    decided = answer["unsure"], answer["reason"] is None
    if abs(expected["confidence"] - expected["threshold"]) > SERVED:
        assert decided == (expected["unsure"], expected["reason"] is None)
    undecided = {"unsure": None, "reason": None}
    agrees(answer | undecided, expected | undecided)
    first, second = sorted(expected["probabilities"].values(), reverse=True)[:2]
    if first - second > 2 * SERVED:
        assert answer["genre"] == expected["genre"]


@pytest.mark.parametrize("clip", CLIPS, ids=CLIP_NAMES)
def test_the_old_champion_is_served_with_its_golden_predictions(service: Service, clip: Path) -> None:
    answers = golden("answers")
    answer = service.post("classify", clip.read_bytes(), clip.name)
    decides_alike(answer.json(), answers["classify"][clip.name])
    song, expected = service.post("timeline", clip.read_bytes(), clip.name).json(), answers["timeline"]
    # where a segment ends depends on which of two genres is a little more probable
    for timeline in (song, expected[clip.name]):
        segments = timeline.pop("segments")
        assert [set(segment) for segment in segments] == [{"start", "end", "genre", "probability"}] * len(
            segments
        )
        assert (segments[0]["start"], segments[-1]["end"]) == (0.0, timeline["ends"][-1])
    agrees(song, expected[clip.name])


def test_a_batch_is_answered_as_it_was(service: Service) -> None:
    content = [("files", (clip.name, clip.read_bytes())) for clip in CLIPS]
    content.append(("files", ("no_audio.wav", b"this is no audio")))
    answers = requests.post(f"{service.address}/classify_batch", files=content, timeout=120).json()
    expected = golden("answers")["classify_batch"]
    for answer, other in zip(answers, expected, strict=True):
        assert (answer["file"], answer["error"]) == (other["file"], other["error"])
        if other["answer"] is None:
            assert answer["answer"] is None
        else:
            decides_alike(answer["answer"], other["answer"])


def test_the_card_of_the_model_is_as_it_was(service: Service) -> None:
    card, expected = service.model(), golden("answers")["model"]
    if card["precision"] != expected["precision"]:
        del card["notes"], expected["notes"]
    agrees(card, expected)
    assert card["reason"] == expected["reason"]
    assert card["lineage"] | {"precision": ""} == expected["lineage"] | {"precision": ""}


RENAMED = {
    "Problem": "ErrorResponse",
    "Curve": "Timeline",
    "CurveIODescriptor": "TimelineIODescriptor",
    "Stretch": "Segment",
}
"""Names of schemas in version 0.1.0 and now."""
TEXTS = {"description", "title", "summary"}


def renamed(described: Any) -> Any:
    """A part of an OpenAPI document of version 0.1.0 with the present names of its schemas."""
    text = json.dumps(described)
    for before, now in RENAMED.items():
        text = text.replace(f'"{before}"', f'"{now}"').replace(f'schemas/{before}"', f'schemas/{now}"')
    return json.loads(text)


def without_texts(described: Any) -> Any:
    """A part of an OpenAPI document without what only people read."""
    if isinstance(described, dict):
        return {
            key: without_texts(value)
            for key, value in described.items()
            if not (key in TEXTS and isinstance(value, str))
        }
    return [without_texts(one) for one in described] if isinstance(described, list) else described


def test_the_http_api_is_described_as_it_was(service: Service) -> None:
    described, expected = requests.get(f"{service.address}/docs.json", timeout=60).json(), golden("openapi")
    for part in ("paths", "components"):
        assert without_texts(described[part]) == without_texts(renamed(expected[part]))


def test_a_candidate_is_compared_with_it_in_the_gate_and_rollback_returns_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test: the candidate is trained once, wherever pytest-xdist sends other tests."""
    unpack(FROZEN, tmp_path)
    state = State(tmp_path)
    state.enter(monkeypatch)
    state.command("run", *CANDIDATE, "--summary", str(tmp_path / "summary.json"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    decision, numbers = summary["decision"], summary["decision"]["numbers"]
    assert decision["verdict"] in ("promoted", "kept")
    assert numbers["compared"] >= 5
    assert numbers["seen_by_candidate"] == numbers["seen_by_champion"] == 0
    for model in ("candidate", "champion"):
        assert f"{numbers[f'{model}_accuracy'] * 100:.1f} %" in decision["reason"]
    assert f"version {CHAMPION}" in decision["reason"]
    assert registry.version(summary["model_version"]).tags["compared_with"] == CHAMPION

    registry.set_champion(summary["model_version"], "to be rolled back")
    said = state.command("rollback", "--reason", "the former was better")
    assert said == f"Version {CHAMPION} is champion again.\n"
    champion = registry.champion()
    assert champion is not None
    assert champion.version == CHAMPION
    check_reference("champion", CHAMPION)
    assert registry.rollback("once more").version == BEFORE
    check_reference("champion", BEFORE)


def built_at(bento: Path) -> str:
    """When a bento was built, as its document says."""
    return str(yaml.safe_load((bento / "bento.yaml").read_text())["creation_time"])


def test_the_bento_of_its_time_is_served_beside_the_registry_of_today(state: State, tmp_path: Path) -> None:
    assert registry.versions()  # opened by the present code
    # `genreflow serve` of another test may have built one of the present code beside it
    bentos = (state.root / "bentoml" / "bentos" / "genreflow").glob(f"v{CHAMPION}-*")
    bento = min(
        bentos, key=lambda one: str(yaml.safe_load((one / "bento.yaml").read_text())["creation_time"])
    )
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    # from a folder of its own: the checkout's code must not be found
    argv = ["env", "-C", str(tmp_path), sys.executable, "-m", "bentoml", "serve", f"genreflow:{bento.name}"]
    argv += ["--port", str(port)]
    with served(argv, tmp_path / "serve.log", state.environment, f"{address}/readyz"):
        for clip in CLIPS:
            with clip.open("rb") as file:
                answer = requests.post(f"{address}/classify", files={"file": file}, timeout=120).json()
            decides_alike(answer, golden("answers")["classify"][clip.name])
