"""`genreflow serve`: the bento of a registered model as a server process, the registry followed beside it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import bentoml

from genreflow import home
from genreflow.errors import GenreflowError
from serving import build, champion
from serving.monitoring import MONITORING_VARIABLE


def serve(model: str, host: str, port: int, poll: float, page: bool, tell: Callable[[str], None]) -> None:
    """Serve a registered model until it is interrupted.

    An alias is followed: whatever it points to later is served then, without a restart. A version is pinned.

    Args:
        poll: seconds between two looks at the registry.
        page: whether there is the web page.
        tell: takes lines for the user.

    Raises:
        GenreflowError: there is no such model, or the server ended by itself.
    """
    bento = build.build(model, page)
    tell(f"{bento.tag} on http://{host}:{port} (Ctrl-C ends it)")
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
            first = champion.Wanted(tag=str(stored.tag), reason=reason, registry=champion.CONNECTED)
            champion.write(file, first)
            follower = threading.Thread(
                target=champion.follow, args=(file, model, first, poll, stop), daemon=True
            )
            follower.start()
        server = subprocess.Popen(argv, env=environment)
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.wait()
            return
        finally:
            stop.set()
    if code > 0:
        raise GenreflowError(f"The service ended with status {code}; what it said is above.")
