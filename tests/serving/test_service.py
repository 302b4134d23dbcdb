"""The bento of the champion, served by a real process over HTTP."""

import asyncio
import io
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import bentoml
import numpy as np
import pytest
import requests
import soundfile
from candidates import write_corpus, write_evaluation, write_packaged
from corpora import split_of
from services import CLI, SAMPLE_RATE, Service

import genreflow
from genreflow import registry
from genreflow.core.documents import PackagedDocument, Served
from genreflow.core.errors import RequestError
from genreflow.features import BATCH_WINDOWS
from serving import limits
from serving.limits import LONG_WINDOWS, WAITING_SECONDS, ConcurrencyLimits


def requirements(bentoml_home: Path) -> str:
    """What the one bento there asks to be installed."""
    (bento,) = (bentoml_home / "bentos" / "genreflow").glob("*/env/python/requirements.txt")
    return bento.read_text()


def test_a_bento_carries_pytorch_only_where_openvino_does_not_serve_the_model(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = requirements(service.song.parent / "bentoml")
    assert "openvino==" in slim
    assert "torch==" not in slim
    packaged, evaluation, corpus = tmp_path / "packaged", tmp_path / "evaluation", tmp_path / "corpus"
    write_packaged(packaged, 0, {})
    document = PackagedDocument.read(packaged)
    refused = document.runtimes[0].model_copy(update={"usable": False, "reason": "parity failed"})
    served = Served(runtime="pytorch", precision="f32")
    document.model_copy(update={"runtimes": (refused,), "served": served}).write(packaged)
    write_corpus(corpus, {})
    write_evaluation(evaluation, packaged, 0.8, {})
    registry.register(packaged, evaluation, corpus, split_of(corpus), None)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    done = subprocess.run([*CLI, "build", "--model", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = requirements(tmp_path / "bentoml")
    for package in ("torch", "transformers", "safetensors", "openvino"):
        assert f"{package}==" in whole


BY_PYFUNC = """
import pathlib, sys
import mlflow, pandas
from genreflow import registry
from genreflow.core import home

mlflow.set_tracking_uri(home.tracking_uri())
model = mlflow.pyfunc.load_model(f"models:/{registry.MODEL_NAME}@champion")
files = [pathlib.Path(name).read_bytes() for name in sys.argv[1:]]
print(model.predict(pandas.DataFrame({"audio": files})).to_json(orient="records"))
"""


def test_silence_is_unsure_with_its_reason_however_it_is_predicted(service: Service, tmp_path: Path) -> None:
    """The command line and MLflow's pyfunc named a genre for silence, as if it were music."""
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    with service.champion.registry():
        by_library = genreflow.load("champion").classify(silence).to_dict()
        song = genreflow.load("champion").classify(service.song)
    found = {"library": by_library}
    environment = os.environ | service.champion.environment
    done = subprocess.run(
        [sys.executable, "-c", BY_PYFUNC, str(silence), str(service.song)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found["pyfunc"], by_pyfunc = json.loads(done.stdout.splitlines()[-1])
    assert [by_pyfunc[name] for name in ("genre", "unsure", "reason")] == [
        song.genre,
        song.unsure,
        song.reason,
    ]
    found["service"] = service.post("classify", silence.read_bytes()).json()
    done, text = (
        subprocess.run(
            [*CLI, "classify", str(silence), *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for options in (("--json",), ())
    )
    assert done.returncode == 0, done.stderr
    (found["command line"],) = json.loads(done.stdout)
    said = {name: (one["genre"], bool(one["unsure"]), one["reason"]) for name, one in found.items()}
    assert set(said.values()) == {(by_library["genre"], True, "silence")}, said
    assert text.stdout.rstrip().endswith("; unsure: silence")


def test_a_clip_is_classified_as_the_library_does_with_the_lineage_of_the_model(service: Service) -> None:
    answer = service.post("classify", service.song.read_bytes())
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["genre"] == service.expected.genre
    assert found["probabilities"] == pytest.approx(service.expected.probabilities, abs=1e-5)
    assert found["seconds"] == pytest.approx(3.0)
    assert found["lineage"]["version"] == "1"
    assert found["lineage"]["digest"] == service.champion.digest
    assert found["lineage"]["corpus_fingerprint"] == "c0" * 32


def test_noise_is_answered_but_unsure(service: Service) -> None:
    found = service.post("classify", service.song.read_bytes()).json()
    assert (found["unsure"], found["reason"], found["threshold"]) == (True, "noise", 0.5)


def test_a_song_has_a_timeline_at_the_requested_hop(service: Service) -> None:
    found = service.post("timeline", service.song.read_bytes(), hop_seconds="0.5").json()
    assert np.diff(found["starts"])[:-1] == pytest.approx(0.5)
    assert found["segments"][0]["start"] == 0
    assert found["segments"][-1]["end"] == pytest.approx(3.0)


def test_of_many_files_a_bad_one_does_not_spoil_the_others(service: Service) -> None:
    song = service.song.read_bytes()
    files = [
        ("files", (name, content)) for name, content in (("a.flac", song), ("b.mp3", b""), ("c.flac", song))
    ]
    answer = requests.post(f"{service.address}/classify_batch", files=files, timeout=60)
    assert answer.status_code == 200, answer.text
    first, bad, last = answer.json()
    assert [one["file"] for one in (first, bad, last)] == ["a.flac", "b.mp3", "c.flac"]
    assert first["answer"]["genre"] == last["answer"]["genre"] == service.expected.genre
    assert first["error"] is None
    assert bad["answer"] is None
    assert bad["error"] == "b.mp3 is empty: it holds no bytes."


def test_the_models_card_says_what_it_is_and_that_the_registry_is_followed(service: Service) -> None:
    card = service.model()
    assert card["registry"] == "connected"
    assert card["accuracy"] == 0.8
    assert card["accuracy_ci95"] == [0.75, 0.84]
    assert card["reason"] == "the first"
    assert card["notes"] == []


def test_every_address_is_described_with_its_errors(service: Service) -> None:
    described = requests.get(f"{service.address}/docs.json", timeout=60).json()
    for path in ("/classify", "/timeline", "/classify_batch"):
        responses = described["paths"][path]["post"]["responses"]
        assert {"200", "400", "408", "413", "415", "503"} <= responses.keys()
        schema = responses["400"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
    assert "get" in described["paths"]["/model"]
    schemas = described["components"]["schemas"]
    assert {
        "Answer",
        "Timeline",
        "BatchAnswer",
        "ModelCard",
        "ErrorResponse",
        "Lineage",
        "Segment",
    } <= schemas.keys()
    assert schemas["Answer"]["example"]["genre"] == "jazz"


def test_a_batch_of_long_songs_waits_for_itself(service: Service) -> None:
    seconds = (LONG_WINDOWS + 8) * 0.25
    song = np.random.default_rng(0).normal(size=round(seconds * SAMPLE_RATE)) * 0.1
    buffer = io.BytesIO()
    soundfile.write(buffer, song, SAMPLE_RATE, format="WAV")
    files = [("files", (f"{one}.wav", buffer.getvalue())) for one in range(12)]
    answer = requests.post(f"{service.address}/classify_batch", files=files, timeout=60)
    assert [each["error"] for each in answer.json()] == [None] * 12


def test_many_concurrent_long_songs_all_succeed(service: Service) -> None:
    seconds = (LONG_WINDOWS + 8) * 0.25
    buffer = io.BytesIO()
    song = np.random.default_rng(0).normal(size=round(seconds * SAMPLE_RATE)) * 0.1
    soundfile.write(buffer, song, SAMPLE_RATE, format="WAV")
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda _: service.post("classify", buffer.getvalue()), range(16)))
    assert {answer.status_code for answer in answers} == {200}


def test_decoded_music_that_waits_is_bounded() -> None:
    async def ask() -> None:
        places = ConcurrencyLimits()
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(places.long(WAITING_SECONDS))
            waiting = asyncio.create_task(stack.enter_async_context(places.long(WAITING_SECONDS - 10)))
            await asyncio.sleep(0)
            with pytest.raises(RequestError, match="busy with long songs"):
                await stack.enter_async_context(places.long(11))
            waiting.cancel()
            await asyncio.sleep(0)
        async with places.long(WAITING_SECONDS), places.long(11):
            pass

    asyncio.run(ask())


@pytest.mark.parametrize("kind", ["short", "decoding", "long"])
def test_a_request_that_waits_too_long_gets_busy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAIT_SECONDS", 0.05)

    async def ask() -> None:
        places = ConcurrencyLimits()
        place = {"short": places.short, "decoding": places.decoding, "long": lambda: places.long(600.0)}[kind]

        async def take_all(taken: AsyncExitStack) -> None:
            while True:
                await taken.enter_async_context(place())

        async with AsyncExitStack() as taken:
            with pytest.raises(RequestError, match="The service is busy") as busy:
                await take_all(taken)
            assert busy.value.status == 503
        async with place():  # what was given back, and what waited in vain, is free again
            pass

    asyncio.run(ask())


def test_concurrent_requests_share_batches_and_each_gets_its_own_answer(
    service: Service, tmp_path: Path
) -> None:
    loud = [round(0.02 * (1 + one), 2) for one in range(12)]
    songs = []
    for one, level in enumerate(loud):
        path = tmp_path / f"{one}.wav"
        samples = np.random.default_rng(one).normal(size=round((1 + one / 4) * SAMPLE_RATE)) * level
        soundfile.write(path, samples, SAMPLE_RATE)
        songs.append(path.read_bytes())
    alone = [service.post("classify", song).json()["probabilities"] for song in songs]
    before = service.figures()
    with ThreadPoolExecutor(len(songs)) as clients:
        together = list(clients.map(lambda song: service.post("classify", song).json(), songs))
    after = service.figures()
    for one, answer in enumerate(together):
        assert answer["probabilities"] == pytest.approx(alone[one], abs=1e-5)
    windows = [answer["windows"] for answer in together]
    batches = after["batch_windows_count"] - before["batch_windows_count"]
    assert after["batch_windows_sum"] - before["batch_windows_sum"] == sum(windows)
    assert batches < sum(math.ceil(each / BATCH_WINDOWS) for each in windows), "each had batches of its own"


def test_figures_and_records_say_where_the_time_went_and_what_was_answered(service: Service) -> None:
    service.post("classify", service.song.read_bytes())
    figures = requests.get(f"{service.address}/metrics", timeout=60).text
    for name in ("decode_seconds", "queue_seconds", "inference_seconds", "batch_windows"):
        assert f"genreflow_{name}_bucket" in figures
    assert f'genreflow_batch_windows_bucket{{le="{BATCH_WINDOWS}.0"' in figures
    records = list(Path(service.champion.environment["GENREFLOW_HOME"]).rglob("monitoring/genreflow/data/*"))
    assert records
    assert service.champion.digest in records[0].read_text()


@pytest.mark.parametrize("probe", ["livez", "readyz", "metrics", ""])
def test_probes_and_the_page_of_the_api_are_bentomls(service: Service, probe: str) -> None:
    assert requests.get(f"{service.address}/{probe}", timeout=60).status_code == 200


def test_bentomls_own_client_is_answered(service: Service) -> None:
    with bentoml.SyncHTTPClient(service.address) as client:
        assert client.classify(file=service.song)["genre"] == service.expected.genre
        assert client.timeline(file=service.song)["genres"]
        assert client.classify_batch(files=[service.song, service.song])[1]["error"] is None


def test_a_port_in_use_is_reported_with_an_error_message_at_once(service: Service) -> None:
    port = service.address.rpartition(":")[2]
    done = subprocess.run([*CLI, "serve", "--port", port], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert "Traceback" not in done.stderr
