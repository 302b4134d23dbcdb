"""The card of a published model: a README in the form that Hugging Face hubs read."""

import json
from typing import TYPE_CHECKING

from genreflow.artifacts import PackagedDocument
from genreflow.families.base import TransformersForm
from genreflow.registry import MODEL_NAME, Version

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

PIPELINE = "audio-classification"


def model_card(
    version: Version,
    packaged: PackagedDocument,
    form: TransformersForm | None,
    address: str,
    licence: str | None = None,
) -> str:
    """The card as Markdown under YAML metadata.

    Args:
        packaged: without paths of the machine that trained.
        form: in which transformers loads it.
        address: `hf://…` or `s3://…`, where it is published.
        licence: as hubs write it; without one the card has none.
    """
    name = address.rstrip("/").rpartition("/")[2]
    parts = [
        f"---\n{_metadata(version, packaged, form, name, licence)}\n---",
        f"# {name}",
        _summary(version, packaged),
        *_warnings(version, packaged),
        "## Use it",
        _with_genreflow(address),
    ]
    if form is not None:
        parts.append(_with_transformers(packaged, form, address))
    parts += [
        "## What it is",
        _what(version, packaged, form),
        "## Where it came from",
        _lineage(version, packaged),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(
    version: Version,
    packaged: PackagedDocument,
    form: TransformersForm | None,
    name: str,
    licence: str | None,
) -> str:
    from huggingface_hub import ModelCardData

    model = packaged.model
    hub_id = model.pretrained if model.pretrained and "/" in model.pretrained else None
    tags = ["music", "music-genre-classification", "genreflow"]
    tags += ["openvino"] if any(one.usable and one.name == "openvino" for one in packaged.runtimes) else []
    tags += ["custom_code"] if form == "own_code" else []
    tags += ["synthetic"] if model.synthetic else []
    tags += [] if _measured(version) else ["not-measured"]
    tags += ["leaky-split"] if _leaky(version) else []
    return ModelCardData(
        license=licence,
        pipeline_tag=PIPELINE,
        library_name="genreflow" if form is None else "transformers",
        base_model=hub_id,
        base_model_relation="finetune" if hub_id else None,
        tags=tags,
        metrics=["accuracy", "f1"] if _measured(version) else None,
        model_name=name,
        eval_results=_results(version) or None,
    ).to_yaml()


def _results(version: Version) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    if not _measured(version):
        return []
    tags = version.tags
    data = tags.get("data", "unknown")
    split = f"{tags.get('protocol', 'unknown')} split"
    split += ", leaky: the figures flatter" if _leaky(version) else ""
    names = {"accuracy": f"accuracy ({_interval(version)})", "f1": "macro F1"}
    values = {"accuracy": float(tags["accuracy"]), "f1": float(tags["macro_f1"])}
    return [
        EvalResult(
            task_type=PIPELINE,
            task_name="Music genre classification",
            dataset_type="".join(letter if letter.isalnum() else "-" for letter in data.lower()),
            dataset_name=f"{data} ({split})",
            dataset_split="test",
            metric_type=metric,
            metric_name=names[metric],
            metric_value=values[metric],
        )
        for metric in ("accuracy", "f1")
    ]


def _summary(version: Version, packaged: PackagedDocument) -> str:
    genres = ", ".join(packaged.model.genres)
    what = f"Names the genre of music: {genres}."
    if not _measured(version):
        return (
            f"{what} How good it is was **not measured**: no clip was left that it had not been trained on."
        )
    share = float(version.tags["accuracy"]) * 100
    return f"{what} **{share:.1f} % right** ({_interval(version)})."


def _warnings(version: Version, packaged: PackagedDocument) -> list[str]:
    model = packaged.model
    warnings = []
    if model.synthetic:
        warnings.append(
            "> **Synthetic.** Trained and tested on generated music: a demonstration that the pipeline "
            "works, not a classifier of real music."
        )
    if _leaky(version):
        reason = model.leak_reason or f"the {model.protocol} split is leaky"
        warnings.append(f"> **Leaky.** The figures flatter: {reason.rstrip('.')}.")
    if model.pretrained is None:
        warnings.append("> **From scratch.** It began without pretrained weights.")
    return warnings


def _with_genreflow(address: str) -> str:
    return f"""\
With genreflow, songs of any length and format; a song's answer is the mean over its windows:

```python
import genreflow

classifier = genreflow.load("{address}")
answer = classifier.classify("song.mp3")
print(answer.genre, answer.confidence)
```

or `genreflow classify song.mp3 --model {address}`."""


def _with_transformers(packaged: PackagedDocument, form: TransformersForm, address: str) -> str:
    hearing = packaged.model.hearing
    rate, length = hearing.sample_rate, hearing.window_samples
    source = address.removeprefix("hf://")
    where = (
        "With transformers"
        if address.startswith("hf://")
        else "With transformers, from a copy of this folder"
    )
    source = source if address.startswith("hf://") else "FOLDER"
    trust = ", trust_remote_code=True" if form == "own_code" else ""
    code = (
        "\n\nIts head is not one of transformers' own: `trust_remote_code` runs `modeling_genreflow.py` and "
        "`head.py` of this repository. Without it nothing is loaded."
        if form == "own_code"
        else ""
    )
    return f"""\
{where}, window by window of {hearing.window_seconds:g} s at {rate} Hz:

```python
import soundfile, soxr
from transformers import pipeline

classify = pipeline("{PIPELINE}", "{source}"{trust})
samples, rate = soundfile.read("song.wav", dtype="float32", always_2d=True)
mono = soxr.resample(samples.mean(axis=1), rate, {rate})
for start in range(0, len(mono) - {length} + 1, {length}):
    print(classify(mono[start : start + {length}], top_k=3))
```{code}"""


def _what(version: Version, packaged: PackagedDocument, form: TransformersForm | None) -> str:
    model = packaged.model
    origin = f"`{model.pretrained}`, fine-tuned" if model.pretrained else "trained from scratch"
    loaded = {
        None: "genreflow",
        "stock": "genreflow, transformers",
        "own_code": "genreflow, transformers with the code that lies here",
    }[form]
    clips = f"{len(model.train_clips)} clips to train on, {len(model.validation_clips)} for selection"
    tested = version.metrics.get("test_clips")
    clips += f", {tested:.0f} to test on" if tested else ""
    fold = "" if model.fold is None else f", fold {model.fold}"
    rows = [
        ("Model", f"family `{model.family}`, {origin}"),
        ("Loaded by", loaded),
        ("Data", f"{version.tags.get('data', 'unknown')}: {clips}"),
        ("Split", f"{model.protocol}{fold}, {'leaky' if _leaky(version) else 'honest'}"),
        (
            "Hears",
            f"windows of {model.hearing.window_seconds:g} s at {model.hearing.sample_rate} Hz; shorter clips "
            f"are {'repeated' if model.hearing.extend == 'repeat' else 'followed by silence'}",
        ),
        (
            "Calibration",
            f"temperature {model.temperature:.3g}, fitted on the clips for selection"
            if model.validation_clips
            else "none: there were no clips to fit a temperature on",
        ),
    ]
    return "\n".join(f"- **{name}**: {text}" for name, text in rows)


def _lineage(version: Version, packaged: PackagedDocument) -> str:
    rows = [
        ("MLflow", f"version {version.version} of `{MODEL_NAME}`, registered {version.created}"),
        ("Run", f"`{version.run_id or 'unknown'}`"),
        ("Corpus fingerprint", f"`{packaged.model.corpus_fingerprint}`"),
        ("sha256 of the model", f"`{packaged.digest}`"),
        ("Code", f"genreflow {packaged.code_version}"),
    ]
    return "\n".join(f"- **{name}**: {text}" for name, text in rows)


def _measured(version: Version) -> bool:
    try:
        return 0 <= float(version.tags["accuracy"]) <= 1
    except (KeyError, ValueError):
        return False


def _leaky(version: Version) -> bool:
    return _measured(version) and version.tags.get("leaky") == "true"


def _interval(version: Version) -> str:
    low, high = json.loads(version.tags["accuracy_ci95"])
    clips = version.metrics.get("test_clips")
    on = f"on {clips:.0f} test clips, " if clips else ""
    return f"{on}95 % interval from {low * 100:.1f} % to {high * 100:.1f} %"
