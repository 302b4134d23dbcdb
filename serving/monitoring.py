"""Metrics of a running service: Prometheus histograms, and a record of each answer, never of the audio."""

import logging
import os
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import Any

import bentoml

from serving.schemas import Lineage

MONITOR = "genreflow"
MONITORING_VARIABLE = "GENREFLOW_MONITORING"
"""The folder of the records; BentoML's default is `monitoring` in the working folder."""
LOG_CONFIGURATION = Path(__file__).with_name("monitoring.yaml")
"""How records are written: to files that are deleted in turn, so that they never fill a pod's disk."""
CONFIGURATION_VARIABLE = "GENREFLOW_MONITORING_CONFIG"
"""Names another such file."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

log = logging.getLogger("genreflow")


def monitoring() -> dict[str, Any]:
    """BentoML's monitor as the service configures it; a person's own, by `BENTOML_CONFIG`, comes first."""
    # by a variable, which BentoML fills in where it serves: a bento would keep the path of where it was built
    os.environ.setdefault(CONFIGURATION_VARIABLE, str(LOG_CONFIGURATION))
    options = {
        "log_path": os.environ.get(MONITORING_VARIABLE, "monitoring"),
        "log_config_file": f"${{{CONFIGURATION_VARIABLE}}}",
    }
    return {"enabled": True, "type": "default", "options": options}


class RequestMetrics:
    """Histograms of the front: where the time of a request goes."""

    def __init__(self) -> None:
        self.decode = _histogram("decode_seconds", "Decoding and resampling one file", SECONDS)
        self.queue = _histogram("queue_seconds", "Windows on their way and waiting for a batch", SECONDS)
        self.whole = _histogram("answer_seconds", "A file from its upload to its answer", SECONDS)


class InferenceMetrics:
    """Histograms of the inner service."""

    def __init__(self, batch: int) -> None:
        self.inference = _histogram("inference_seconds", "The model on one batch of windows", SECONDS)
        self.windows = _histogram("batch_windows", "Windows in one batch", tuple(range(1, batch + 1)))


def record(
    genre: str, confidence: float, unsure: bool, seconds: float, latency: float, lineage: Lineage
) -> None:
    """Write a prediction to BentoML's monitor, with the model, the song's length and the latency.

    A record that cannot be written does not fail the request: it is logged once.
    """
    try:
        # in a context of its own: a record that fails would be in the way of the next
        copy_context().run(_write, genre, confidence, unsure, seconds, latency, lineage)
    except (OSError, ValueError) as error:  # logging makes a ValueError of a file that it cannot open
        _warn_once(str(error))


def _write(
    genre: str, confidence: float, unsure: bool, seconds: float, latency: float, lineage: Lineage
) -> None:
    with bentoml.monitor(MONITOR) as monitor:
        monitor.log(genre, name="genre", role="prediction", data_type="categorical")
        monitor.log(round(confidence, 6), name="confidence", role="prediction", data_type="numerical")
        monitor.log(unsure, name="unsure", role="prediction", data_type="categorical")
        monitor.log(round(seconds, 3), name="seconds", role="feature", data_type="numerical")
        monitor.log(round(latency, 6), name="latency", role="feature", data_type="numerical")
        monitor.log(lineage.version, name="version", role="feature", data_type="categorical")
        monitor.log(lineage.digest, name="digest", role="feature", data_type="categorical")


@cache
def _warn_once(why: str) -> None:
    log.error("Answers are not recorded: %s. Name a folder in %s.", why, MONITORING_VARIABLE)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Any:
    # Imported here: BentoML's workers name the folder they share figures in after importing the service.
    from prometheus_client import Histogram

    return Histogram(f"genreflow_{name}", help_text, buckets=buckets)
