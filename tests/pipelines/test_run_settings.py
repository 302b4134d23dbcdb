"""Profiles, options and `--set`: what merges into what, and what is refused in a sentence."""

from pathlib import Path

import pytest

from genreflow.core.errors import SettingsError
from pipelines.settings import nearest, parse_assignments, profiles, read_profile, settings


def test_every_built_in_profile_is_complete_and_valid(tmp_path: Path) -> None:
    assert set(profiles()) == {"quickstart", "music", "gtzan-mini", "gtzan"}
    for name in profiles():
        chosen = settings(name, source=str(tmp_path))
        assert chosen.training["seed"] == 42
        assert chosen.model


def test_quickstart_trains_from_scratch_and_needs_no_hub() -> None:
    chosen = settings("quickstart")
    assert chosen.source.startswith("synthetic")
    assert chosen.backbone is None


def test_gtzan_is_distilhubert_on_ten_second_windows(tmp_path: Path) -> None:
    chosen = settings("gtzan", source=str(tmp_path))
    assert chosen.backbone == "ntu-spml/distilhubert"
    assert chosen.model["window_seconds"] == 10
    assert chosen.training["learning_rate"] == pytest.approx(5e-5)
    assert chosen.corpus.protocol == "fault-filtered"


def test_a_given_backbone_takes_the_place_of_a_model_from_scratch(tmp_path: Path) -> None:
    chosen = settings("quickstart", backbone=str(tmp_path))
    assert chosen.backbone == str(tmp_path)
    assert chosen.model["from_scratch"] is None
    assert settings("quickstart", assignments=[f"model.backbone={tmp_path}"]) == chosen


def test_another_family_does_not_inherit_the_profiles_backbone(tmp_path: Path) -> None:
    chosen = settings("gtzan", source=str(tmp_path), family_name="mfcc_cnn")
    assert chosen.family == "mfcc_cnn"
    assert chosen.backbone is None


def test_options_override_the_profile_and_set_overrides_both() -> None:
    chosen = settings(
        "quickstart",
        family_name="mfcc_cnn",
        protocol="random",
        assignments=["training.epochs=3", "training.learning_rate=5e-4", "source=synthetic?clips=3"],
    )
    assert chosen.corpus.protocol == "random"
    assert chosen.training["epochs"] == 3
    assert chosen.training["learning_rate"] == pytest.approx(5e-4)
    assert chosen.source == "synthetic?clips=3"


def test_set_overrides_the_protocol_option_too() -> None:
    chosen = settings("quickstart", protocol="random", assignments=["corpus.protocol=grouped"])
    assert chosen.corpus.protocol == "grouped"


def test_a_relative_folder_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings(source="clips").source == str(tmp_path / "clips")


def test_values_are_read_as_yaml() -> None:
    changes = parse_assignments(["corpus.genres=[a, b]", "a.b=null", "a.c=true", "a.d=x=y"])
    assert changes == {"corpus.genres": ["a", "b"], "a.b": None, "a.c": True, "a.d": "x=y"}


def test_keys_inside_a_mapping_are_reached_one_by_one() -> None:
    chosen = settings(assignments=["model.from_scratch.hidden_size=64", "resources.environment.A=b"])
    assert chosen.model["from_scratch"]["hidden_size"] == 64
    assert chosen.model["from_scratch"]["model_type"] == "hubert"
    assert chosen.resources.environment == {"A": "b"}


def test_limits_of_pods_may_be_given_as_numbers() -> None:
    resources = settings(assignments=["resources.cpu=2", "resources.memory=4000000000"]).resources
    assert (resources.cpu, resources.memory) == ("2", "4000000000")
    assert settings(assignments=["resources.cpu=0.5"]).resources.cpu == "0.5"


@pytest.mark.parametrize(
    "text", ["2", "1.10", "007", "true", "no", "null", "2026-01-01", "", "a b", "http://mlflow:5000"]
)
def test_a_variable_of_the_pods_is_the_text_that_was_typed(text: str) -> None:
    chosen = settings(assignments=[f"resources.environment.NAME={text}", "resources.environment.B='c'"])
    assert chosen.resources.environment == {"NAME": text, "B": "c"}
    whole = settings(assignments=[f"resources.environment={{NAME: {text}}}"])
    assert whole.resources.environment == {"NAME": text}


def test_numbers_and_truths_in_a_profiles_environment_become_texts(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    environment = "{A: 2, B: 0.5, C: true, D: false}"
    path.write_text(f"source: synthetic\nresources: {{cpu: 2, environment: {environment}}}\n")
    resources = settings(str(path)).resources
    assert resources.cpu == "2"
    assert resources.environment == {"A": "2", "B": "0.5", "C": "true", "D": "false"}


def test_a_profile_of_ones_own_is_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("source: synthetic\nfamily: mfcc_cnn\nvariants: {mfcc_cnn: {training: {epochs: 2}}}\n")
    assert settings(str(path)).training["epochs"] == 2


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("trainin.epochs=3", "did you mean training.epochs?"),
        ("training.epoch=3", "did you mean training.epochs?"),
        ("epochs=3", "did you mean training.epochs?"),
        ("corpus.protocl=random", "did you mean corpus.protocol?"),
        ("gate.margins=0.1", "did you mean gate.margin?"),
        ("model.window_second=3", "did you mean model.window_seconds?"),
        ("sorce=x", "did you mean source?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(assignment: str, expected: str) -> None:
    with pytest.raises(SettingsError, match="There is no setting") as refused:
        settings(assignments=[assignment])
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("training.epochs=many", "Setting training.epochs"),
        ("training.epochs=0", "Setting training.epochs"),
        ("corpus.protocol=sorted", "Setting corpus.protocol"),
        ("gate.margin=high", "Setting gate.margin"),
        ("resources.gpus=one", "Setting resources.gpus"),
        ("resources.cpu=two", "Setting resources.cpu"),
        ("resources.cpu=true", "Setting resources.cpu"),
        ("resources.memory=4 GB", "Setting resources.memory"),
        ("resources.environment={A: [1]}", "Setting resources.environment.A"),
        ("resources.volumes={gtzan-data: data}", "Setting resources.volumes.gtzan-data"),
        ("resources.volumes={Data_1: /data}", "Setting resources.volumes.Data_1"),
        ("training.epochs", "--set needs key=value"),
        ("training.epochs=[1", "not readable YAML"),
        ("family=[3]", "family is a text"),
        ("family=3", "no family '3'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(assignment: str, expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(assignments=[assignment])
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_names_are_refused_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match="did you mean quickstart"):
        settings("quikstart")
    with pytest.raises(SettingsError, match="did you mean mfcc_cnn"):
        settings(family_name="mfcc-cnn")
    with pytest.raises(SettingsError, match="has no backbone"):
        settings(family_name="mfcc_cnn", backbone="a/b")
    with pytest.raises(SettingsError, match="needs a source"):
        settings("gtzan")


def test_a_profile_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sorce: synthetic\n")
    with pytest.raises(SettingsError, match="did you mean source"):
        read_profile(str(path))
    with pytest.raises(SettingsError, match="no profile file"):
        read_profile(str(tmp_path / "other.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("variants: {encodr: {}}", "did you mean encoder?"),
        ("variants: {pretrained_mfcc: {}}", "did you mean pretrained_mfcc_cnn?"),
        ("variants: {encoder: {modle: {}}}", "did you mean model?"),
        ("variants: {encoder: {training: {epoch: 3}}}", "did you mean variants.encoder.training.epochs?"),
        ("variants: {mfcc_cnn: {model: {dropot: 0}}}", "did you mean variants.mfcc_cnn.model.dropout?"),
        ("variants: {pretrained_encoder: {training: {epochs: few}}}", "Setting variants.pretrained_encoder"),
        ("variants: {encoder: {training: fast}}", "is not a mapping"),
        ("variants: [encoder]", "is not a mapping"),
        ("corpus: random", "is not a mapping"),
        ("gate: {margn: 0.1}", "did you mean gate.margin?"),
    ],
)
def test_what_is_misspelt_anywhere_in_a_profile_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"source: synthetic\nfamily: encoder\n{text}\n")
    with pytest.raises(SettingsError) as refused:
        settings(str(path))
    assert expected in str(refused.value)


def test_a_backbone_that_would_not_be_used_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    scratch = "variants: {encoder: {model: {from_scratch: {model_type: hubert}}}}"
    path.write_text(f"source: synthetic\n{scratch}\n")
    with pytest.raises(SettingsError, match="a/b would not be used"):
        settings(str(path), backbone="a/b")
    with pytest.raises(SettingsError, match="a/b would not be used"):
        settings(str(path), assignments=["model.backbone=a/b"])
    assert settings(str(path), backbone="a/b", assignments=["model.from_scratch=null"]).backbone == "a/b"
    assert settings(str(path)).backbone is None


def test_nothing_near_means_no_guess() -> None:
    assert nearest("zzzz", ["source", "family"]) == "."
