"""What starting and following cost: only what is needed is imported, and a model is read once."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from services import POLL_SECONDS, Champion, Service


def test_only_the_process_that_shows_the_page_imports_gradio(champion: Champion) -> None:
    """BentoML imports the service in three processes, and Gradio takes longer than all else together."""
    code = "import sys, serving.service; sys.exit('gradio' in sys.modules)"
    environment = os.environ | champion.environment | {"GENREFLOW_MODEL_TAG": champion.model_tag}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_looking_for_a_new_champion_does_not_fetch_the_model_again(service: Service, tmp_path: Path) -> None:
    fetched = Path(service.champion.environment["GENREFLOW_HOME"]) / "models" / service.champion.digest
    shutil.move(fetched, tmp_path / "aside")
    try:
        time.sleep(8 * POLL_SECONDS)
        assert not fetched.exists()
        assert service.model()["registry"] == "connected"
    finally:
        if not fetched.exists():
            shutil.move(tmp_path / "aside", fetched)
