"""The private parts of other projects that genreflow relies on: each fails here first when it changes.

Why each is needed, and the version it was seen with, stands as a comment where it is used.
"""

import ast
import asyncio
import inspect
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from components.image import ROOT

PACKAGES = ("genreflow", "components", "pipelines", "serving")
IMPORTED = {
    "bentoml._internal.server.http.traffic",
    "transformers.models.whisper.modeling_whisper._compute_mask_indices",
}
"""What is imported under a private name; a new one belongs into this file."""


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_nothing_else_is_imported_under_a_private_name() -> None:
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    found |= {f"{node.module}.{alias.name}" for alias in node.names}
                elif isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
    private = {name for name in found if any(re.match("_[a-z]", part) for part in name.split("."))}
    assert private == IMPORTED


def test_bentoml_looks_its_timeout_middleware_up_when_a_server_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """serving/patience.py"""
    from bentoml._internal.server.base_app import BaseAppFactory
    from bentoml._internal.server.http import traffic

    assert parameters(traffic.TimeoutMiddleware) == ["app", "timeout"]
    ours = type("Ours", (traffic.TimeoutMiddleware,), {})
    monkeypatch.setattr(traffic, "TimeoutMiddleware", ours)
    factory = SimpleNamespace(timeout=5, max_concurrency=None)
    middlewares = BaseAppFactory.middlewares.fget(factory)  # type: ignore[attr-defined]
    assert [(one.cls, one.kwargs) for one in middlewares] == [(ours, {"timeout": 5})]


def test_bentoml_logs_refusals_under_the_name_that_is_filtered() -> None:
    """serving/service.py"""
    from _bentoml_impl.server import app
    from bentoml._internal.server import http_app

    assert app.log_exception is http_app.log_exception
    assert http_app.logger.name == "bentoml._internal.server.http_app"


def test_gradio_cleans_up_behind_a_session_with_the_method_that_is_wrapped() -> None:
    """serving/gradio_hardening.py, `cancel_on_closed_tab` and `end_streams_of_unknown_sessions`"""
    import gradio
    from gradio.server_messages import UnexpectedErrorMessage

    with gradio.Blocks() as blocks:
        pass
    assert parameters(blocks._queue.clean_events) == ["session_hash", "event_id"]
    assert inspect.iscoroutinefunction(blocks._queue.clean_events)
    assert "nobody" not in blocks._queue.pending_messages_per_session
    assert UnexpectedErrorMessage(message="", session_not_found=True).session_not_found


def test_gradio_names_the_tasks_of_a_session_by_its_hash() -> None:
    """serving/gradio_hardening.py, `cancel_on_closed_tab`"""
    from gradio.utils import set_task_name

    from serving.gradio_hardening import EVENT_MARK

    async def named() -> str:
        task: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(0))
        set_task_name(task, "session_1", 7, "event", batch=False)
        await task
        return task.get_name()

    assert asyncio.run(named()) == f"session_1_7{EVENT_MARK}event"


def test_gradio_preprocesses_inputs_with_the_method_that_is_wrapped() -> None:
    """serving/gradio_hardening.py, `restrict_uploads`"""
    import gradio

    with gradio.Blocks() as blocks:
        pass
    assert parameters(blocks.preprocess_data) == ["block_fn", "inputs", "state", "explicit_call"]
    assert inspect.iscoroutinefunction(blocks.preprocess_data)
    assert Path(blocks.GRADIO_CACHE).is_absolute()


def test_gradio_reads_uploads_with_the_parser_that_is_replaced() -> None:
    """serving/gradio_hardening.py, `keep_no_uploads`"""
    from gradio import route_utils
    from starlette.datastructures import Headers

    assert "GradioMultiPartParser" in route_utils.upload_fn.__code__.co_names

    async def nothing() -> Any:
        yield b""

    parser = route_utils.GradioMultiPartParser(Headers({}), nothing(), max_file_size=1)
    assert parameters(parser.on_headers_finished) == []
    assert {"file", "field_name"} <= set(vars(parser._current_part))


def test_pytorch_has_the_gradient_of_softmax() -> None:
    """genreflow/training/attention.py"""
    import torch

    scores = torch.randn(3, 5, requires_grad=True)
    weights, above = torch.softmax(scores, -1), torch.randn(3, 5)
    weights.backward(above)
    found = torch._softmax_backward_data(above, weights.detach(), -1, weights.dtype)
    torch.testing.assert_close(found, scores.grad)


def test_transformers_takes_another_attention_under_a_known_name_and_the_first_one_back() -> None:
    """genreflow/training/attention.py: public, but for a name that transformers itself has registered"""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from genreflow.training.attention import attend, windowed_attention

    with windowed_attention():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    assert parameters(sdpa_attention_forward)[: len(parameters(attend)) - 1] == parameters(attend)[:-1]


def test_transformers_has_the_spans_of_specaugment() -> None:
    """genreflow/families/encoder/module.py"""
    from transformers.models.whisper.modeling_whisper import _compute_mask_indices

    names = parameters(_compute_mask_indices)
    assert names[:3] == ["shape", "mask_prob", "mask_length"]
    spans = _compute_mask_indices((4, 100), 0.5, 10)
    assert (spans.shape, spans.dtype) == ((4, 100), bool)
    assert 0 < spans.mean() < 1


def test_trainer_writes_a_checkpoint_with_the_methods_that_are_overridden() -> None:
    """genreflow/training/trainer.py, `ClipTrainer`"""
    from transformers import Trainer

    assert parameters(Trainer._save_checkpoint) == ["self", "model", "trial"]
    assert parameters(Trainer.save_model) == ["self", "output_dir", "_internal_call"]
    assert {"save_model", "_save_optimizer_and_scheduler"} <= set(Trainer._save_checkpoint.__code__.co_names)
    assert "model_accepts_loss_kwargs" in inspect.getsource(Trainer)


def test_tarfile_forgets_the_members_that_it_has_read() -> None:
    """genreflow/corpus/sources/unpack.py"""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in "abc":
            tar.addfile(tarfile.TarInfo(name))
    file.seek(0)
    names = []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            assert len(tar.members) <= 1  # type: ignore[attr-defined]
            tar.members = []  # type: ignore[attr-defined]
            names.append(member.name)
    assert names == ["a", "b", "c"]


def test_datasets_saves_what_the_clips_of_a_corpus_are_laid_out_like(tmp_path: Path) -> None:
    """genreflow/corpus/store.py"""
    import json

    import numpy as np

    from genreflow.corpus.store import ClipWriter

    with ClipWriter(tmp_path / "corpus") as writer:
        writer.write("jazz.0", 8_000, np.arange(9, dtype=np.int16))
    ours = tmp_path / "corpus" / "clips"
    datasets.load_from_disk(str(ours)).save_to_disk(tmp_path / "theirs")
    assert {path.name for path in ours.iterdir()} == {path.name for path in (tmp_path / "theirs").iterdir()}
    states = [json.loads((folder / "state.json").read_text()) for folder in (ours, tmp_path / "theirs")]
    assert states[0].keys() == states[1].keys()
    assert states[0]["_data_files"] == states[1]["_data_files"]
