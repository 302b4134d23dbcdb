"""`genreflow serve`: the bento of a registered model as a server process, the registry followed beside it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import bentoml
import psutil

from genreflow.core import home
from genreflow.core.errors import GenreflowError
from serving import build, champion
from serving.monitoring import MONITORING_VARIABLE

MARK = "GENREFLOW_SERVE"
"""In the environment of a server and of its workers, which are sessions of their own."""


def serve(
    model: str, host: str, port: int, poll: float, page: bool, runtime: str, show: Callable[[str], None]
) -> None:
    """Serve a registered model until SIGTERM or Ctrl-C.

    An alias is followed: whatever it points to later is served then, without a restart. A version is pinned.

    Args:
        poll: seconds between two looks at the registry.
        page: whether there is the web page.
        runtime: see `loading.choose_runtime`, of this model and of those that follow.
        show: called with a line for the user.

    Raises:
        GenreflowError: there is no such model, or the server ended by itself.
    """
    bento = build.build(model, page, runtime)
    show(f"{bento.tag} on http://{host}:{port} (Ctrl-C ends it)")
    argv = [sys.executable, "-m", "bentoml", "serve", str(bento.tag), "--host", host, "--port", str(port)]
    environment = {MONITORING_VARIABLE: str(home.home() / "monitoring")} | os.environ
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="genreflow-serve-") as folder:
        environment.setdefault("GRADIO_TEMP_DIR", str(Path(folder) / "uploads"))
        if not model.isdigit():
            file = Path(folder) / "champion.json"
            environment[champion.FILE_VARIABLE] = str(file)
            stored = bentoml.models.get(bento.info.all_models[0].tag)
            reason = stored.info.metadata.get("reason")
            first = champion.RequestedModel(tag=str(stored.tag), reason=reason, registry=champion.CONNECTED)
            champion.write(file, first)
            follower = threading.Thread(
                target=champion.follow, args=(file, model, runtime, first, poll, stop), daemon=True
            )
            follower.start()
        environment[MARK] = folder
        try:
            _until_ended(argv, environment)
        finally:
            stop.set()
            _end_workers(folder)


def _until_ended(argv: list[str], environment: dict[str, str]) -> None:
    """Run a server until SIGTERM or Ctrl-C, or until it ends by itself.

    Raises:
        GenreflowError: it failed or was killed.
    """
    server: subprocess.Popen[bytes] | None = None
    stopping = False

    def end(*_: object) -> None:
        nonlocal stopping
        stopping = True
        if server is not None:
            server.terminate()

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, end)  # before there is a server that could be left behind
    server = subprocess.Popen(argv, env=environment)
    if stopping:  # while it was started
        server.terminate()
    code = server.wait()
    if code and not stopping:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        raise GenreflowError(f"The service was ended {how}; its output is above.")


def _end_workers(mark: str) -> None:
    """End the workers of a server that was killed: they would hold the port and go on serving."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()
