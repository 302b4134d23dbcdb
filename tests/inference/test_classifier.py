"""From inputs to answers: windows, batches, clips, timelines; and what may be loaded."""

import itertools
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import PEAK

from genreflow.audio.decode import OUT_OF_PHASE
from genreflow.core.documents import InputSpec, ModelDocument
from genreflow.core.errors import AudioError, GenreflowError, ModelError, SettingsError
from genreflow.features import BATCH_WINDOWS, window_inputs
from genreflow.inference.answers import Timeline, classify_windows, majority
from genreflow.inference.classifier import Classifier
from genreflow.inference.loading import load_classifier

RATE = 2_000
GENRES = ("blues", "metal", "pop")


def document(
    window_seconds: float = 1.0, hop_seconds: float = 1.0, temperature: float = 1.0
) -> ModelDocument:
    return ModelDocument(
        family="encoder",
        settings={},
        genres=GENRES,
        input_spec=InputSpec(
            sample_rate=RATE,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            extend="repeat",
            representation="waveform",
            parameters={"normalise": False},
        ),
        temperature=temperature,
        training={},
        pretrained=None,
        synthetic=False,
        train_clips={},
        validation_clips={},
        corpus_fingerprint="c",
        features_fingerprint="f",
        protocol="random",
        fold=None,
        leaky=True,
        leak_reason=None,
        code_version="0",
        run_id=None,
    )


class ByLoudness:
    """A model by hand: quiet windows are blues, middling ones metal, loud ones pop; it counts its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        self.batches.append(len(inputs))
        level = np.sqrt((inputs**2).mean(axis=1, keepdims=True))
        return (-8 * np.abs(level - np.array([0.0, 0.5, 1.0]))).astype(np.float32)


def by_loudness(**changes: float) -> tuple[Classifier, ByLoudness]:
    model = ByLoudness()
    return Classifier(document(**changes), model, "pytorch", "f32"), model


def song(*parts: tuple[float, float], rate: int = RATE) -> np.ndarray:
    """A square wave of parts (seconds, level)."""
    levels = np.concatenate([np.full(round(seconds * rate), level) for seconds, level in parts])
    return (levels * np.where(np.arange(len(levels)) // 10 % 2, 1, -1)).astype(np.float32)


def test_a_clips_prediction_is_the_mean_over_its_windows_and_the_vote_is_the_majority() -> None:
    probabilities = np.array([[0.45, 0.4, 0.15], [0.5, 0.4, 0.1], [0.0, 0.98, 0.02]], dtype=np.float32)
    answer = classify_windows(probabilities, GENRES, song((9.0, 0.5)), 9.0)
    assert answer.genre == "metal"
    assert answer.confidence == pytest.approx(np.mean([0.4, 0.4, 0.98]))
    assert answer.vote == "blues"
    assert answer.windows == 3
    assert answer.seconds == 9.0
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.to_dict()["probabilities"]["pop"] == pytest.approx(0.09)


def test_a_tied_vote_goes_to_the_genre_more_probable_on_the_mean() -> None:
    assert majority(np.array([[0.51, 0.49, 0], [0.1, 0.9, 0]])) == 1
    assert majority(np.array([[0.9, 0.1, 0], [0.49, 0.51, 0]])) == 0


def test_a_file_is_classified_from_a_path_a_string_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, song((3.4, 0.5)), RATE, subtype="FLOAT")
    classifier, _ = by_loudness()
    answers = [classifier.classify(given) for given in (path, str(path), path.read_bytes())]
    assert answers[0].genre == "metal"
    assert answers[0].windows == 4
    assert answers[0].seconds == pytest.approx(3.4)
    assert answers[0] == answers[1] == answers[2]


def test_what_was_chosen_in_decoding_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "song.wav"
    sound = song((3.4, 0.5))
    soundfile.write(path, np.stack([sound, -sound], axis=1), RATE, subtype="FLOAT")
    classifier, _ = by_loudness()
    assert classifier.classify(path).genre == "metal"
    classifier.timeline(path)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: {OUT_OF_PHASE}"] * 2


def test_an_hour_is_decoded_at_the_models_rate_and_never_in_memory_at_its_own(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    soundfile.write(path, np.zeros((48_000, 2), np.int16), 48_000)
    head = bytearray(path.read_bytes()[:44])
    size = 3_600 * 48_000 * 4
    head[4:8], head[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    with path.open("r+b") as file:
        file.write(head)
        file.truncate(44 + size)
    code = PEAK + (
        "import sys\nfrom genreflow.audio import decode\nbefore = peak()\n"
        "audio = decode(sys.argv[1], sample_rate=16_000)\nprint(len(audio.samples), peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    samples, mib = map(float, done.stdout.split())
    assert samples == 3_600 * 16_000
    assert mib < 1.3 * samples * 4 / (1 << 20)


def test_a_clip_shorter_than_a_window_has_one_window() -> None:
    classifier, _ = by_loudness()
    answer = classifier.classify_samples(song((0.3, 1.0)), RATE)
    assert (answer.genre, answer.windows, answer.seconds) == ("pop", 1, 0.3)


def test_temperature_changes_confidence_and_not_the_prediction() -> None:
    sharp, _ = by_loudness()
    soft, _ = by_loudness(temperature=4.0)
    samples = song((2.0, 0.6))
    hard_answer, soft_answer = sharp.classify_samples(samples, RATE), soft.classify_samples(samples, RATE)
    assert hard_answer.genre == soft_answer.genre == "metal"
    assert 1 / 3 < soft_answer.confidence < hard_answer.confidence


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.floats(0.01, 25.0),
    rate=st.sampled_from([2_000, 3_000, 8_000]),
    hop=st.one_of(st.none(), st.floats(0.2, 2.0)),
)
def test_any_song_is_cut_into_the_same_windows_in_bounded_batches(
    seconds: float, rate: int, hop: float | None
) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, max(1, round(seconds * rate))).astype(np.float32)
    classifier, model = by_loudness(window_seconds=1.0, hop_seconds=0.7)
    logits, starts = classifier.window_logits(samples, rate, hop)
    inputs, expected_starts = window_inputs(classifier.document.input_spec, samples, rate, hop)
    assert max(model.batches) <= BATCH_WINDOWS
    np.testing.assert_array_equal(starts, expected_starts)
    np.testing.assert_allclose(logits, ByLoudness()(inputs), rtol=1e-5, atol=1e-6)


def test_a_timeline_finds_where_a_song_changes() -> None:
    classifier, _ = by_loudness()
    timeline = classifier.timeline_samples(song((6.0, 0.05), (5.0, 1.0), (4.0, 0.5)), RATE, hop_seconds=0.25)
    segments = timeline.segments()
    assert [segment.genre for segment in segments] == ["blues", "pop", "metal"]
    assert [segment.end for segment in segments] == pytest.approx([6.0, 11.0, 15.0], abs=0.3)
    assert all(segment.probability > 0.8 for segment in segments)
    assert timeline.ends[-1] == pytest.approx(15.0)


def test_one_odd_window_among_overlapping_ones_makes_no_segment() -> None:
    starts = np.arange(0, 10.0)
    probabilities = np.tile(np.array([0.8, 0.2, 0.0], dtype=np.float32), (10, 1))
    probabilities[5] = [0.3, 0.7, 0.0]
    overlapping = Timeline(starts, starts + 3, probabilities, GENRES)
    apart = Timeline(starts, starts + 1, probabilities, GENRES)
    assert [segment.genre for segment in overlapping.segments()] == ["blues"]
    assert [tuple(segment) for segment in apart.segments()] == [
        (0.0, 5.0, "blues", pytest.approx(0.8)),
        (5.0, 6.0, "metal", pytest.approx(0.7)),
        (6.0, 10.0, "blues", pytest.approx(0.8)),
    ]


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.floats(0.1, 30.0),
    hop=st.floats(0.2, 3.0),
    levels=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=6),
)
def test_segments_cover_any_song_from_start_to_end_without_gaps(
    seconds: float, hop: float, levels: list[float]
) -> None:
    classifier, _ = by_loudness()
    samples = song(*[(seconds / len(levels), level) for level in levels])
    if len(samples) == 0:
        return
    segments = classifier.timeline_samples(samples, RATE, hop).segments()
    assert segments[0].start == 0.0
    assert segments[-1].end == pytest.approx(len(samples) / RATE)
    for before, after in itertools.pairwise(segments):
        assert before.end == after.start
        assert before.genre != after.genre
    assert all(segment.start < segment.end for segment in segments)


def test_a_timeline_becomes_plain_json_values() -> None:
    import json

    classifier, _ = by_loudness()
    plain = json.loads(json.dumps(classifier.timeline_samples(song((3.0, 1.0)), RATE).to_dict()))
    assert plain["genres"] == list(GENRES)
    assert len(plain["starts"]) == len(plain["ends"]) == len(plain["probabilities"]) == 3
    assert plain["segments"][0] == {
        "start": 0.0,
        "end": 3.0,
        "genre": "pop",
        "probability": pytest.approx(1, abs=0.05),
    }


def test_a_model_measures_its_best_seconds_per_window() -> None:
    def predict(inputs: np.ndarray) -> np.ndarray:
        time.sleep(0.08)
        return ByLoudness()(inputs)

    classifier = Classifier(document(), predict, "pytorch", "f32")
    assert classifier.best_seconds_per_window == float("inf")
    classifier.classify_samples(song((1.0, 0.5)), RATE)
    alone = classifier.best_seconds_per_window
    assert alone >= 0.08
    classifier.classify_samples(song((2.0 * BATCH_WINDOWS, 0.5)), RATE)
    assert 0.01 <= classifier.best_seconds_per_window < alone


def test_a_hop_of_nothing_is_refused_with_an_error_message() -> None:
    classifier, _ = by_loudness()
    with pytest.raises(SettingsError, match="more than 0"):
        classifier.timeline_samples(song((3.0, 1.0)), RATE, hop_seconds=0.0)


def test_what_is_no_audio_and_what_is_not_there_are_audio_errors(tmp_path: Path) -> None:
    classifier, _ = by_loudness()
    page = tmp_path / "page.wav"
    page.write_text("<html>not found</html>")
    with pytest.raises(AudioError, match=r"page\.wav"):
        classifier.classify(page)
    with pytest.raises(AudioError, match=r"missing\.mp3"):
        classifier.timeline(str(tmp_path / "missing.mp3"))


def test_a_folder_that_is_no_model_is_refused_with_an_error_message(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no folder"):
        load_classifier(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"neither packaged\.json nor genreflow\.json"):
        load_classifier(tmp_path)
    (tmp_path / "packaged.json").write_text("{}")
    with pytest.raises(GenreflowError, match="not a readable PackagedDocument"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.pkl", "pytorch_model.bin", "deep/scaler.joblib", "training_args.PT", "openvino/other.bin"]
)
def test_a_folder_with_a_pickle_is_refused_by_name(tmp_path: Path, name: str) -> None:
    document().write(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=Path(name).name):
        load_classifier(tmp_path)


def test_a_trained_model_is_not_served_by_openvino_before_it_is_packaged(tmp_path: Path) -> None:
    document().write(tmp_path)
    with pytest.raises(ModelError, match="not packaged yet"):
        load_classifier(tmp_path, runtime="openvino")


def test_an_unknown_runtime_or_precision_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there are auto, openvino, pytorch"):
        load_classifier(tmp_path, runtime="onnx")
    with pytest.raises(SettingsError, match="f32, bf16, int8"):
        load_classifier(tmp_path, precision="int4")  # type: ignore[arg-type]
