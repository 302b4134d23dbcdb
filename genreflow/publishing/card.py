"""The card of a published model: a README in the form that Hugging Face hubs read."""

import json
import shlex
from typing import TYPE_CHECKING

from genreflow.core.documents import PackagedDocument
from genreflow.evaluation import card
from genreflow.evaluation.card import ModelFacts
from genreflow.fitting.contract import TransformersForm
from genreflow.inference.backends import REFERENCE
from genreflow.registry import MODEL_NAME, Version

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

PIPELINE = "audio-classification"
LOADED_BY: dict[TransformersForm | None, str] = {
    None: "genreflow",
    "stock": "genreflow, transformers",
    "own_code": "genreflow, transformers with the code that lies here",
}


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
    facts = _facts(version, packaged)
    parts = [
        f"---\n{_metadata(version, facts, form, name, licence)}\n---",
        f"# {name}",
        _summary(facts),
        *card.warnings(facts),
        "## Use it",
        _with_genreflow(address),
    ]
    if form is not None:
        parts.append(_with_transformers(packaged, form, address))
    parts += [
        "## What it is",
        card.bullets([*card.model_rows(facts), ("Loaded by", LOADED_BY[form])]),
        "## Where it came from",
        _lineage(version, packaged),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(version: Version, packaged: PackagedDocument) -> ModelFacts:
    """What is known of a registered version: its tags have the figures and the name of the corpus."""
    try:
        low, high = json.loads(version.tags["accuracy_ci95"])
        figures = (float(version.tags["accuracy"]), (float(low), float(high)))
    except (KeyError, TypeError, ValueError):  # `not measured`
        figures = None
    clips = version.metrics.get("test_clips")
    return ModelFacts(
        packaged=packaged,
        data=version.tags.get("data", "unknown"),
        accuracy=figures[0] if figures else None,
        accuracy_ci95=figures[1] if figures else None,
        test_clips=round(clips) if clips else None,
        leaky=version.tags.get("leaky") == "true",
        scored_with=version.tags.get("scored_with"),
    )


def _metadata(
    version: Version,
    facts: ModelFacts,
    form: TransformersForm | None,
    name: str,
    licence: str | None,
) -> str:
    from huggingface_hub import ModelCardData

    packaged, model, measured = facts.packaged, facts.packaged.model, facts.accuracy is not None
    hub_id = model.pretrained if model.pretrained and "/" in model.pretrained else None
    tags = ["music", "music-genre-classification", "genreflow"]
    tags += sorted({one.name for one in packaged.runtimes if one.usable} - {REFERENCE})
    tags += ["custom_code"] if form == "own_code" else []
    tags += ["synthetic"] if model.synthetic else []
    tags += [] if measured else ["not-measured"]
    tags += ["leaky-split"] if facts.figures_leak else []
    return ModelCardData(
        license=licence,
        pipeline_tag=PIPELINE,
        library_name="genreflow" if form is None else "transformers",
        base_model=hub_id,
        base_model_relation="finetune" if hub_id else None,
        tags=tags,
        metrics=["accuracy", "f1"] if measured else None,
        model_name=name,
        eval_results=_results(version, facts) or None,
    ).to_yaml()


def _results(version: Version, facts: ModelFacts) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    if facts.accuracy is None:
        return []
    data, tags = facts.data, version.tags
    split = f"{tags.get('protocol', 'unknown')} split"
    split += ", leaky: the figures are optimistic" if facts.figures_leak else ""
    names = {"accuracy": f"accuracy ({card.interval(facts)})", "f1": "macro F1"}
    values = {"accuracy": facts.accuracy, "f1": float(tags["macro_f1"])}
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


def _summary(facts: ModelFacts) -> str:
    what = f"Predicts the genre of music: {', '.join(facts.packaged.model.genres)}."
    if facts.accuracy is None:
        return (
            f"{what} How good it is was **not measured**: no clip was left that it had not been trained on."
        )
    return f"{what} **Accuracy {card.percent(facts.accuracy)}** ({card.interval(facts)})."


def _with_genreflow(address: str) -> str:
    return f"""\
With genreflow, songs of any length and format; a song's prediction is the mean over its windows:

```python
import genreflow

classifier = genreflow.load({json.dumps(address, ensure_ascii=False)})
answer = classifier.classify("song.mp3")
print(answer.genre, answer.confidence)
```

or `genreflow classify song.mp3 --model {shlex.quote(address)}`."""


def _with_transformers(packaged: PackagedDocument, form: TransformersForm, address: str) -> str:
    spec = packaged.model.input_spec
    rate, length = spec.sample_rate, spec.window_samples
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
{where}, window by window of {spec.window_seconds:g} s at {rate} Hz:

```python
import soundfile, soxr
from transformers import pipeline

classify = pipeline("{PIPELINE}", "{source}"{trust})
samples, rate = soundfile.read("song.wav", dtype="float32", always_2d=True)
mono = soxr.resample(samples.mean(axis=1), rate, {rate})
for start in range(0, len(mono) - {length} + 1, {length}):
    print(classify(mono[start : start + {length}], top_k=3))
```{code}"""


def _lineage(version: Version, packaged: PackagedDocument) -> str:
    return card.bullets(
        [
            ("MLflow", f"version {version.version} of `{MODEL_NAME}`, registered {version.created}"),
            ("Run", f"`{version.run_id or 'unknown'}`"),
            ("Corpus fingerprint", f"`{packaged.model.corpus_fingerprint}`"),
            ("sha256 of the model", f"`{packaged.digest}`"),
            ("Code", f"genreflow {packaged.code_version}"),
        ]
    )
