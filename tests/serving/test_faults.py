"""What goes wrong around a running service: a dead worker, a new champion, no registry, too much at once."""

import io
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import bentoml
import numpy as np
import psutil
import pytest
import requests
import soundfile
from services import SAMPLE_RATE, Champion, Service, running, until

from genreflow import registry

KEY = "open sesame"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def service(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that these tests may harm."""
    with running(champion.copy(tmp_path_factory.mktemp("faults"))) as service:
        yield service


@pytest.fixture(scope="module")
def small(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key that takes little on, and has nowhere to write its records."""
    file = tmp_path_factory.mktemp("records") / "file"
    file.touch()
    tight = {
        "GENREFLOW_API_KEY": KEY,
        "GENREFLOW_MAX_REQUESTS": "2",
        "GENREFLOW_MAX_UPLOAD_MB": "1",
        "GENREFLOW_MAX_SECONDS": "120",
        "GENREFLOW_MAX_WINDOWS": "100",
        "GENREFLOW_MAX_FILES": "3",
        "GENREFLOW_MONITORING": str(file / "monitoring"),
    }
    with running(champion.copy(tmp_path_factory.mktemp("small")), **tight) as service:
        yield service


@contextmanager
def load(service: Service, clients: int = 4) -> Iterator[list[requests.Response]]:
    """Clients that ask again and again, and what they are answered.

    Raises:
        RequestException: at the end, where one of them got no answer.
    """
    song, answers, stop = service.song.read_bytes(), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(service.post("classify", song))

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask) for _ in range(clients)]
        try:
            yield answers
        finally:
            stop.set()
        for one in asking:
            one.result()


def workers(service: Service) -> list[psutil.Process]:
    """The front and the inner service."""
    port = service.address.rpartition(":")[2]
    server = next(one for one in psutil.process_iter(["cmdline"]) if is_server(one, port))
    return [one for one in server.children(recursive=True) if "_bentoml_impl.worker.service" in one.cmdline()]


def inner_process(service: Service) -> psutil.Process:
    return next(one for one in workers(service) if "inference" in one.cmdline())


def is_server(process: psutil.Process, port: str) -> bool:
    line = process.info["cmdline"] or []
    return "pipelines.cli" in line and "serve" in line and port in line


def test_numpys_threads_are_limited_to_one(service: Service) -> None:
    """While they waited for work in a loop, a quarter of Whisper-tiny's clips a second was lost."""
    threads = [one.environ()["OPENBLAS_NUM_THREADS"] for one in workers(service)]
    assert threads == ["1", "1"]


def test_a_new_champion_answers_without_a_failed_request_and_a_rollback_brings_the_old_one_back(
    service: Service,
) -> None:
    second = service.champion.register("second", 1)
    with load(service) as answers:
        until(lambda: len(answers) > 5, "nothing was answered")
        with service.champion.registry():
            registry.set_champion(second, "it is better")
        until(lambda: service.model()["lineage"]["version"] == second, "the new champion never came")
        assert service.model()["reason"] == "it is better"
        seen = len(answers)
        until(lambda: len(answers) > seen + 5, "nothing was answered")
        with service.champion.registry():
            registry.rollback("it was not")
        until(lambda: service.model()["lineage"]["version"] == "1", "the old champion never came back")
    assert {answer.status_code for answer in answers} == {200}
    by_version: dict[str, set[str]] = {}
    for answer in answers:
        found = answer.json()
        rounded = {genre: round(share, 4) for genre, share in found["probabilities"].items()}
        by_version.setdefault(found["lineage"]["version"], set()).add(str(rounded))
    assert {version: len(different) for version, different in by_version.items()} == {"1": 1, second: 1}


def test_a_champion_whose_predictions_deviate_here_is_not_served_and_the_card_reports_it(
    service: Service,
) -> None:
    third = service.champion.register("third", 2, temperature=1.3)
    with service.champion.registry():
        registered = registry.version(third)
    tag = f"genreflow:v{third}-{registered.digest[:12]}"
    # what serve will find imported already, spoilt on this machine
    service.champion.store(tag, service.champion.root / "third-model")
    weights = service.champion.stored(tag) / "openvino" / "model.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with service.champion.registry():
        registry.set_champion(third, "spoilt")
        until(lambda: service.model()["notes"], "the card never said so")
        card = service.model()
        registry.rollback("spoilt")
    assert card["lineage"]["version"] == "1"
    assert "cannot be served here" in card["notes"][0]
    assert service.post("classify", service.song.read_bytes()).json()["lineage"]["version"] == "1"
    until(lambda: not service.model()["notes"], "the note stayed after the rollback")


def test_a_registry_that_cannot_be_read_is_reported_by_the_card_and_the_service_goes_on(
    service: Service,
) -> None:
    store = Path(service.champion.environment["GENREFLOW_HOME"]) / "mlflow.db"
    away = store.with_suffix(".away")
    before = service.model()["registry"]
    store.rename(away)
    store.mkdir()
    try:
        until(lambda: service.model()["registry"] != "connected", "the card never said so")
        sentence = service.model()["registry"]
        answer = service.post("classify", service.song.read_bytes())
    finally:
        store.rmdir()
        away.rename(store)
    assert before == "connected"
    assert "has not resolved the alias champion since" in str(sentence)
    assert str(store.parent) not in str(sentence)
    assert answer.status_code == 200
    until(lambda: service.model()["registry"] == "connected", "it was never connected again")


def test_a_killed_worker_comes_back_and_costs_no_more_than_503(service: Service) -> None:
    with load(service) as answers:
        until(lambda: len(answers) > 5, "nothing was answered")
        killed = inner_process(service)
        killed.send_signal(signal.SIGKILL)
        until(lambda: not killed.is_running(), "it was not killed")
        seen = len(answers)
        until(
            lambda: sum(one.status_code == 200 for one in answers[seen:]) > 10, "nothing was answered again"
        )
    counts = Counter(answer.status_code for answer in answers)
    assert counts.keys() <= {200, 503}, counts
    for answer in answers:
        if answer.status_code == 503:
            assert answer.headers["Retry-After"].isdigit()
            assert answer.json()["error"].endswith(".")
    assert inner_process(service).pid != killed.pid


def test_short_clips_are_not_starved_by_long_songs(service: Service) -> None:
    short, took = answered_beside(service, 4, "classify", wav(600.0))
    assert np.median(short) < took / 2


def test_short_clips_are_not_starved_while_long_songs_are_decoded(service: Service) -> None:
    """More of them than there are places; a window every half a minute costs the model nothing."""
    short, took = answered_beside(service, 12, "timeline", silence(1_200), hop_seconds="30")
    assert max(short) < took / 3


def answered_beside(
    service: Service, count: int, path: str, song: bytes, **fields: str
) -> tuple[list[float], float]:
    """Seconds that each of the short clips took beside so many long songs, and seconds that these took."""
    began, short = time.perf_counter(), []
    with ThreadPoolExecutor(count) as clients:
        songs = [clients.submit(service.post, path, song, **fields) for _ in range(count)]
        time.sleep(0.2)
        while not short or not all(one.done() for one in songs):
            start = time.perf_counter()
            assert service.post("classify", service.song.read_bytes()).status_code == 200
            short.append(time.perf_counter() - start)
    took = time.perf_counter() - began
    assert {one.result().status_code for one in songs} == {200}
    return short, took


def silence(seconds: int, rate: int = 44_100) -> bytes:
    """Quickly sent, slowly decoded."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(seconds):
            sound.write(np.zeros(rate, np.int16))
    return buffer.getvalue()


def wav(seconds: float, rate: int = SAMPLE_RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.random.default_rng(0).normal(size=round(seconds * rate)) * 0.1, rate, format="WAV"
    )
    return buffer.getvalue()


def ask(service: Service, content: bytes, path: str = "classify", **fields: str) -> requests.Response:
    return requests.post(
        f"{service.address}/{path}",
        files={"file": ("a.wav", content)},
        data=fields,
        headers=HEADERS,
        timeout=60,
    )


def test_only_requests_with_the_key_are_accepted_and_probes_need_none(small: Service) -> None:
    song = small.song.read_bytes()
    assert ask(small, song).status_code == 200
    refused = small.post("classify", song)
    assert refused.status_code == 401
    assert "needs a key" in refused.json()["error"]
    assert refused.headers["WWW-Authenticate"].startswith("Basic")
    assert (
        requests.get(f"{small.address}/model", headers={"Authorization": "Bearer no"}, timeout=60).status_code
        == 401
    )
    assert requests.get(f"{small.address}/model", auth=("anybody", KEY), timeout=60).status_code == 200
    for path in ("livez", "readyz", "metrics", "", "docs.json"):
        assert requests.get(f"{small.address}/{path}", timeout=60).status_code == 200
    with bentoml.SyncHTTPClient(small.address, token=KEY) as client:
        assert client.classify(file=small.song)["genre"] == small.expected.genre


def test_records_that_cannot_be_written_fail_no_request_and_are_logged_once(small: Service) -> None:
    song = small.song.read_bytes()
    assert [ask(small, song).status_code for _ in range(3)] == [200] * 3
    files = [("files", (f"{one}.flac", song)) for one in range(3)]
    many = requests.post(f"{small.address}/classify_batch", files=files, headers=HEADERS, timeout=60)
    assert many.status_code == 200, many.text
    assert [one["error"] for one in many.json()] == [None] * 3
    assert small.log.count("Answers are not recorded") == 1


def test_what_is_larger_or_longer_than_allowed_is_refused(small: Service) -> None:
    assert "larger than 1 MB" in ask(small, bytes(1_100_000)).json()["error"]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    endless = (block for block in (head, *(bytes(100_000) for _ in range(30))))
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    streamed = requests.post(f"{small.address}/classify", data=endless, headers=HEADERS | kind, timeout=60)
    assert streamed.status_code == 413
    assert "larger than 1 MB" in streamed.json()["error"]
    long = ask(small, wav(121.0, 2_000))
    assert long.status_code == 413
    assert "more than 120 s" in long.json()["error"]
    fine = ask(small, small.song.read_bytes(), "timeline", hop_seconds="0.01")
    assert fine.status_code == 400
    assert "more than 100 windows" in fine.json()["error"]
    files = [("files", (f"{one}.flac", small.song.read_bytes())) for one in range(4)]
    many = requests.post(f"{small.address}/classify_batch", files=files, headers=HEADERS, timeout=60)
    assert many.status_code == 413
    assert "at most 3" in many.json()["error"]


def test_more_requests_than_allowed_get_retry_after(small: Service) -> None:
    song = wav(55.0)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: ask(small, song), range(8)))
    assert {answer.status_code for answer in answers} == {200, 503}
    busy = next(answer for answer in answers if answer.status_code == 503)
    assert int(busy.headers["Retry-After"]) > 0
    assert "busy" in busy.json()["error"]
    assert ask(small, song).status_code == 200


def test_nothing_that_went_wrong_was_an_error_of_the_front(service: Service) -> None:
    assert "(status=500" not in service.log
    assert "never retrieved" not in service.log
