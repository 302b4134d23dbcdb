"""Measurement: thirty seconds of audio through musicnn as it is exported and as plain convolutions."""

import time
from collections.abc import Callable

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor

from genreflow.backbones.musicnn.network import BANDS, FRAMES, Musicnn
from genreflow.features.musicnn_mel import WINDOW_SAMPLES, musicnn_log_mel
from genreflow.inference.backends.openvino import openvino_precisions
from genreflow.inference.processor import processor
from tests.backbones.test_musicnn_network import plain_front, random_variables

WINDOWS = 10
"""Of 3 s: 30 s of audio, as one batch."""
THREADS = 2
REPEATS = 5


class PlainMusicnn(Musicnn):
    """The same network with its front end as musicnn's `models.py` has it."""

    def __init__(self, variables: dict) -> None:
        super().__init__(variables)
        self.variables = variables

    def front_end(self, log_mel: Tensor) -> Tensor:
        return plain_front(self.variables, log_mel)


def compiled(module: torch.nn.Module, precision: str) -> openvino.CompiledModel:
    example = torch.rand(2, FRAMES, BANDS)
    model = openvino.convert_model(module, example_input=example, input=[(-1, FRAMES, BANDS)])
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS}
    return openvino.Core().compile_model(model, "CPU", options)


def fastest(compute: Callable[[], object]) -> tuple[float, float]:
    """The least wall time, and the least time on all cores, of `REPEATS` runs after one to warm up.

    On a machine with other load the second is the one to compare.
    """
    compute()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter(), time.process_time()
        compute()
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return min(wall for wall, _ in times), min(cores for _, cores in times)


@pytest.mark.bench
def test_the_exported_form_is_faster_than_plain_convolutions() -> None:
    torch.set_num_threads(THREADS)
    variables = random_variables()
    exported, plain = Musicnn(variables).eval(), PlainMusicnn(variables).eval()
    log_mel = torch.rand(WINDOWS, FRAMES, BANDS, generator=torch.Generator().manual_seed(0)) * 3
    with torch.no_grad():
        assert (exported(log_mel) - plain(log_mel)).abs().max() < 1e-4 * plain(log_mel).abs().max()
        forms = {
            "PyTorch f32": (lambda: plain(log_mel), lambda: exported(log_mel)),
        }
        for precision in ("f32", "bf16"):
            if precision in openvino_precisions():
                models = [compiled(module, precision) for module in (plain, exported)]
                forms[f"OpenVINO {precision}"] = tuple(
                    lambda model=model: model(log_mel.numpy())
                    for model in models  # type: ignore[misc]
                )
        print(f"\n30 s of audio as {WINDOWS} windows, {THREADS} threads, {processor()}")
        ratios = {}
        for name, (as_convolutions, as_products) in forms.items():
            (plain_wall, plain_cores), (wall, cores) = fastest(as_convolutions), fastest(as_products)
            ratios[name] = plain_cores / cores
            print(
                f"{name:14} plain {plain_wall:.2f} s ({plain_cores:.2f} s of cores), exported {wall:.2f} s "
                f"({cores:.2f} s of cores), {ratios[name]:.2f}×"
            )
    assert ratios["PyTorch f32"] > 1.2
    assert ratios["OpenVINO f32"] > 0.8


@pytest.mark.bench
def test_the_log_mel_spectrogram_of_thirty_seconds() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (WINDOWS, WINDOW_SAMPLES)).astype(np.float32)
    wall, cores = fastest(lambda: musicnn_log_mel(samples, sample_rate=16_000))
    print(f"\nlog-mel of {WINDOWS} windows: {1000 * wall:.0f} ms ({1000 * cores:.0f} ms of cores)")
    assert cores < 0.5
