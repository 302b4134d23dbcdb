"""The service with the default model of real music (`linear` on `musicnn`) beside a demo with DistilHuBERT.

The demo is `transformers.pipeline` behind Flask, with a model of DistilHuBERT's size and random weights: its
speed does not depend on them. Both classify the same clip of 30 s.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from candidates import write_corpus, write_evaluation
from corpora import ingest_and_split, split_of
from servers import free_port, served
from services import CLI, Champion, Service
from test_inference import untrained_distilhubert
from test_serving import INFERENCE, REQUESTS, TURNS, WARM_UP, Load, Send, load, running, uploading

from genreflow import packaging, registry
from genreflow.backbones.musicnn import weights
from genreflow.corpus.settings import CorpusSettings
from genreflow.extraction import extract
from genreflow.families import family
from genreflow.fitting.fine_tuning import fine_tune
from genreflow.inference.answers import Classification
from genreflow.inference.processor import processor
from tests.conftest import need

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

CLIENTS = 8
AIM = 20.0
"""Times as many clips a second as the demo."""
SEEN = 5.0
"""What a processor without bf16 gave (7.8 times; 13.2 with bf16, on a busy machine), less some noise."""
DEMO_WINDOW_SECONDS = 10
DEMO_REQUESTS = 8
"""Of the demo in one turn: at less than a clip a second more would take minutes."""


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Champion:
    """`linear` on musicnn, trained on gtzan-mini, registered and built."""
    root = tmp_path_factory.mktemp("default")
    song = sorted((shared / "gtzan-mini" / "genres" / "jazz").glob("*.wav"))[0]
    made = Champion(root, song, Classification("", 0.0, {}, "", 0.0, 0, None), "")
    linear, corpus = family("linear"), root / "corpus"
    ingest_and_split(str(shared / "gtzan-mini"), CorpusSettings(), corpus)
    with made.registry():
        try:
            weights.load()
        except Exception as error:  # whatever keeps the package index away
            need(False, f"musicnn's weights ({error})")
        extract(corpus, linear.representation(linear.settings({})), root / "features")
        fine_tune(root / "features", split_of(corpus), root / "model", linear, {}, {}, corpus=corpus)
        document = packaging.package(root / "model", corpus, split_of(corpus), root / "packaged")
        for one in document.runtimes:
            print(f"{one.name} {one.precision}: {one.latency_ms_p50:.0f} ms a window; {one.reason or 'kept'}")
        write_corpus(root / "registered", {})
        write_evaluation(root / "evaluation", root / "packaged", 0.1, {})
        registry.register(
            root / "packaged", root / "evaluation", root / "registered", split_of(root / "registered"), None
        )
        registry.set_champion("1", "a measurement")
    built = subprocess.run(
        [*CLI, "build"], env=os.environ | made.environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return made


@pytest.fixture(scope="module")
def service(champion: Champion) -> Iterator[Service]:
    with running(champion) as service:
        yield service


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, champion: Champion) -> Iterator[str]:
    """The address of the demo."""
    root = tmp_path_factory.mktemp("demo")
    document = untrained_distilhubert(root / "model")
    (root / "transformers").mkdir()
    family("encoder").export_transformers(root / "model", document, root / "transformers")
    address = f"http://127.0.0.1:{(port := free_port())}"
    argv = [sys.executable, str(Path(__file__).with_name("flask_demo.py")), str(root / "transformers")]
    with served([*argv, str(port)], root / "flask.log", {}, f"{address}/readyz"):
        yield address


def processor_seconds(address: str) -> float:
    """Of the processes of a server that listens at that address, since they began."""
    port = address.rpartition(":")[2]
    found = {
        process
        for parent in psutil.process_iter(["cmdline"])
        if port in (parent.info["cmdline"] or []) and "-c" not in parent.info["cmdline"]
        for process in (parent, *parent.children(recursive=True))
    }
    return sum(sum(process.cpu_times()[:2]) for process in found)


def test_many_times_as_many_clips_a_second_as_a_demo_of_distilhuberts_size(
    service: Service, demo: str
) -> None:
    song = service.song
    senders: dict[str, tuple[Send, int]] = {
        "genreflow": (uploading(f"{service.address}/classify", song), REQUESTS[CLIENTS]),
        "Flask, windows": (uploading(f"{demo}/?window_seconds={DEMO_WINDOW_SECONDS}", song), DEMO_REQUESTS),
        "Flask, whole": (uploading(demo, song), DEMO_REQUESTS),
    }
    for send, _ in senders.values():
        load(send, 1, WARM_UP)
    card = service.model()
    print(f"\nlinear on musicnn, {CLIENTS} clients, clips of 30 s; {processor()}")
    print(f"genreflow: {card['runtime']} {card['precision']}")
    seen: dict[str, Load] = {}
    spent: dict[str, float] = {}
    processor_time: dict[str, float] = dict.fromkeys(senders, 0.0)
    for _, (name, (send, count)) in itertools.product(range(TURNS), senders.items()):
        address = service.address if name == "genreflow" else demo
        before, began = service.figures(), processor_seconds(address)
        found = load(send, CLIENTS, count)
        processor_time[name] += processor_seconds(address) - began
        seen[name] = seen[name] + found if name in seen else found
        if name == "genreflow":
            for key, value in service.figures().items():
                spent[key] = spent.get(key, 0.0) + value - before.get(key, 0.0)
    ours = seen["genreflow"]
    for name, found in seen.items():
        own = {one: processor_time[one] / len(seen[one].latencies) for one in (name, "genreflow")}
        print(
            f"{name:15} {found}; genreflow {ours.rate / found.rate:5.1f} times as many; {own[name]:.2f} s of "
            f"processor time a clip, {own[name] / own['genreflow']:.1f} times genreflow's"
        )
    clips = len(ours.latencies)
    print(
        f"of genreflow's {ours.seconds:.1f} s the model ran for {spent[INFERENCE] / ours.seconds:.0%}, "
        f"{spent['batch_windows_sum'] / spent['batch_windows_count']:.1f} windows a batch; a clip's decoding "
        f"{spent['decode_seconds_sum'] / clips:.3f} s, waiting {spent['queue_seconds_sum'] / clips:.3f} s, "
        f"whole answer {spent['answer_seconds_sum'] / clips:.3f} s; aim {AIM:g} times the demo's rate"
    )
    assert ours.rate / seen["Flask, windows"].rate >= SEEN
