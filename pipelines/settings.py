"""What a run is made of: profile, options and `--set` merged into one frozen, checked `RunSettings`."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from genreflow.artifacts import Frozen, PackagingSettings
from genreflow.corpus.settings import CorpusSettings
from genreflow.errors import SettingsError
from genreflow.families import FAMILIES, family
from genreflow.gate import GatePolicy
from genreflow.training import TrainingSettings, training_settings

PROFILES = Path(__file__).parent / "profiles"
PRETRAINED = "pretrained_"
"""Before a family's name: the variant of a profile that is taken where a backbone is given."""
SCALARS = ("source", "family", "backbone", "experiment")
"""The settings that stand outside a section."""
SECTIONS = ("corpus", "packaging", "gate", "serving", "resources")
"""The sections of a profile that are the same for every family."""
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""Of a claim or secret in Kubernetes."""
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
MountPath = Annotated[str, Field(pattern=r"^/.")]
CpuLimit = Annotated[str, Field(pattern=r"^([0-9]*\.)?[0-9]+m?$", coerce_numbers_to_str=True)]
"""Cores, as `2` or `0.5`, or thousandths of one, as `500m`."""
Bytes = Annotated[str, Field(pattern=r"^[0-9]+([EPTGMK]i?)?$", coerce_numbers_to_str=True)]
"""As `4G` or `2Gi`."""
ENVIRONMENT = "resources.environment"


def _written(value: Any) -> Any:
    """What YAML read as a number or a truth, as the text that a program expects of a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_written)]


class Resources(Frozen):
    """What a step gets: in pods as limits; on this machine only device and batch count."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`, `cpu` or `cuda`: where features are extracted and, unless training says, trained on."""
    batch: int = Field(default=8, ge=1)
    """Windows computed at once in extraction."""
    cpu: CpuLimit = "2"
    """Limit of the steps that compute, in cores (`0.5`, `500m`); those that only ask and tell get 1."""
    memory: Bytes = "4G"
    """Limit of the steps that compute (`4G`, `4Gi`); those that only ask and tell get 2G."""
    gpus: int = Field(default=0, ge=0)
    """Accelerators for the steps that run the model; 0 asks for none."""
    accelerator: str = "nvidia.com/gpu"
    """What the cluster calls them."""
    shared_memory: Bytes = "2Gi"
    """Size of /dev/shm where an accelerator is asked for: PyTorch's loaders die without."""
    retries: int = Field(default=2, ge=0)
    """How often a pod that died is tried again; on this machine a failure is told at once."""
    environment: dict[str, Text] = Field(default_factory=dict)
    """Variables of every pod, such as MLFLOW_TRACKING_URI; what is secret belongs into `secrets`."""
    secrets: dict[ObjectName, dict[SecretKey, Variable]] = Field(default_factory=dict)
    """Kubernetes secrets, and for each of their keys the variable of every pod that gets its value."""
    volumes: dict[ObjectName, MountPath] = Field(default_factory=dict)
    """Persistent volume claims, each with the path where the steps that read source or backbone see it."""


class ServingSettings(Frozen):
    """What a person may set about the bento of what is promoted."""

    runtime: Literal["auto", "openvino", "pytorch"] = "auto"
    """What answers: see `genreflow.runtime.choose_runtime`."""


class RunSettings(Frozen):
    """One run of the training pipeline, complete: every default is filled in."""

    profile: str
    source: str
    """A source that `genreflow.corpus.sources` opens; folders as absolute paths."""
    family: str
    backbone: str | None
    """A hub id or an absolute folder; None where the model is trained from scratch."""
    experiment: str
    """The MLflow experiment."""
    corpus: CorpusSettings
    model: dict[str, Any]
    """The family's settings, complete and checked."""
    training: dict[str, Any]
    """The training settings, complete and checked."""
    packaging: PackagingSettings
    gate: GatePolicy
    serving: ServingSettings
    resources: Resources


def profiles() -> tuple[str, ...]:
    """The names of the profiles that come with genreflow."""
    return tuple(sorted(path.stem for path in PROFILES.glob("*.yaml")))


def read_profile(name: str) -> dict[str, Any]:
    """A profile as it is written: a built-in one by name, or a YAML file by path.

    Raises:
        SettingsError: there is no such profile, or it is not a mapping of known keys.
    """
    path = Path(name)
    if name in profiles():
        text = (PROFILES / f"{name}.yaml").read_text()
    elif path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise SettingsError(f"There is no profile file {name}.")
        text = path.read_text()
    else:
        raise SettingsError(
            f"There is no profile {name!r}{nearest(name, profiles())} There are {', '.join(profiles())}; "
            "a YAML file of your own also does."
        )
    try:
        profile = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"Profile {name} is not readable YAML: {_one_line(str(error))}") from error
    if not isinstance(profile, dict):
        raise SettingsError(f"Profile {name} is not a mapping of settings.")
    _check_keys_of(f"Profile {name}", profile, (*SCALARS, *SECTIONS, "variants"))
    for section in (*SECTIONS, "variants"):
        _mapping(f"Profile {name}: {section}", profile.get(section))
    _check_variants(name, profile.get("variants") or {})
    return profile


def _check_variants(profile: str, variants: Mapping[str, Any]) -> None:
    """Refuse what is misspelt in any variant, also in those that this run does not take."""
    known = [*FAMILIES, *(f"{PRETRAINED}{name}" for name in FAMILIES)]
    _check_keys_of(f"Profile {profile}: variants", variants, known)
    for variant, parts in variants.items():
        where = f"variants.{variant}"
        sections = _mapping(f"Profile {profile}: {where}", parts)
        _check_keys_of(f"Profile {profile}: {where}", sections, ("model", "training"))
        kinds: dict[str, type[Frozen]] = {
            "model": family(variant.removeprefix(PRETRAINED)).settings_type,
            "training": TrainingSettings,
        }
        for section, values in sections.items():
            given = _mapping(f"Profile {profile}: {where}.{section}", values)
            checked(f"{where}.{section}", kinds[section], given)


def _check_keys_of(what: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in values:
        if key not in known:
            raise SettingsError(f"{what} has an unknown key {key!r}{nearest(str(key), known)}")


def _mapping(what: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise SettingsError(f"{what} is not a mapping of settings.")
    return value or {}


def settings(
    profile: str = "quickstart",
    source: str | None = None,
    family_name: str | None = None,
    backbone: str | None = None,
    protocol: str | None = None,
    assignments: Sequence[str] = (),
    checkpoint_uri: str | None = None,
) -> RunSettings:
    """Merge defaults < profile < options < `--set key=value` and check the whole.

    Raises:
        SettingsError: a key that does not exist (the nearest is named), a value that does not fit, or parts
            that do not go together.
    """
    chosen = read_profile(profile)
    changes = parse_assignments(assignments)
    if "model.backbone" in changes:
        changes["backbone"] = changes.pop("model.backbone")
    scalars: dict[str, Any] = {
        "source": None,
        "family": "encoder",
        "backbone": None,
        "experiment": "genreflow",
    }
    scalars |= {key: chosen[key] for key in SCALARS if key in chosen}
    options = {"source": source, "family": family_name, "backbone": backbone}
    if family_name is not None and family_name != scalars["family"]:
        scalars["backbone"] = None  # the profile's backbone belongs to the profile's family
    scalars |= {key: value for key, value in options.items() if value is not None}
    for key in SCALARS:
        if key in changes:
            scalars[key] = changes.pop(key)
    for key in ("source", "family", "experiment"):
        if not isinstance(scalars[key], str):
            raise SettingsError(
                f"Profile {profile} needs a source: --source gtzan, or a folder with one of clips per genre."
                if key == "source" and scalars[key] is None
                else f"{key} is a text, not {scalars[key]!r}."
            )
    name = scalars["family"]
    if name not in FAMILIES:
        raise SettingsError(
            f"There is no family {name!r}{nearest(name, FAMILIES)} There are {', '.join(FAMILIES)}."
        )
    kind = family(name)
    sections = _sections(chosen, name, scalars["backbone"])
    _check_keys(changes, kind.settings_type)
    if protocol is not None:
        sections["corpus"]["protocol"] = protocol
    if checkpoint_uri is not None:
        sections["training"]["checkpoint_uri"] = checkpoint_uri
    for dotted, value in changes.items():
        section, key = dotted.split(".", 1)
        _place(sections[section], key.split("."), value)
    if "backbone" in kind.settings_type.model_fields:
        if scalars["backbone"] is not None:
            sections["model"]["backbone"] = _located(str(scalars["backbone"]))
    elif scalars["backbone"] is not None:
        raise SettingsError(
            f"The family {name} has no backbone; leave --backbone away, or take --family encoder."
        )
    model = checked("model", kind.settings_type, sections["model"])
    if scalars["backbone"] is not None and kind.pretrained(model) is None:
        raise SettingsError(
            f"The backbone {scalars['backbone']} would not be used: model.from_scratch trains from scratch. "
            f"Leave one of the two away (--set model.from_scratch=null), or give profile {profile} a variant "
            f"{PRETRAINED}{name}."
        )
    sections["training"].setdefault("device", sections["resources"].get("device", "auto"))
    checked("training", TrainingSettings, sections["training"])
    training = training_settings(kind, model, sections["training"])
    if training.checkpoint_uri is not None and "://" not in training.checkpoint_uri:
        # a step does not run in the folder where it was started from
        folder = str(Path(training.checkpoint_uri).expanduser().resolve())
        training = training.model_copy(update={"checkpoint_uri": folder})
    return RunSettings(
        profile=profile,
        source=_located_source(scalars["source"]),
        family=name,
        backbone=kind.pretrained(model),
        experiment=scalars["experiment"],
        corpus=checked("corpus", CorpusSettings, sections["corpus"]),
        model=model.model_dump(mode="json"),
        training=training.model_dump(mode="json"),
        packaging=checked("packaging", PackagingSettings, sections["packaging"]),
        gate=checked("gate", GatePolicy, sections["gate"]),
        serving=checked("serving", ServingSettings, sections["serving"]),
        resources=checked("resources", Resources, sections["resources"]),
    )


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`key=value` strings, dotted keys to values read as YAML; the pods' variables are taken as typed.

    Raises:
        SettingsError: a string without `=`, or a value that is not YAML.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise SettingsError(
                f"--set wants key=value, such as training.epochs=3; {assignment!r} is not that."
            )
        try:
            changes[key.strip()] = _value(key.strip(), text)
        except yaml.YAMLError as error:
            raise SettingsError(f"--set {assignment}: the value is not readable YAML.") from error
    return changes


def _value(key: str, text: str) -> Any:
    if key == ENVIRONMENT or key.startswith(f"{ENVIRONMENT}."):
        value = yaml.load(text, yaml.BaseLoader)  # every scalar stays a text: 1.10, 007 and no are no numbers
        return "" if value is None else value
    return yaml.safe_load(text)


def checked(section: str, kind: type[Frozen], values: Mapping[str, Any]) -> Any:
    """`values` as a `kind`.

    Raises:
        SettingsError: names the section, the key and what is wrong with its value.
    """
    unknown = [key for key in values if key not in kind.model_fields]
    if unknown:
        known = [f"{section}.{key}" for key in kind.model_fields]
        raise SettingsError(
            f"There is no setting {section}.{unknown[0]}{nearest(f'{section}.{unknown[0]}', known)}"
        )
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(_sentence(section, error)) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: `; did you mean …?` or just a full stop."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else "."


def section_types(model_type: type[Frozen]) -> dict[str, type[Frozen]]:
    """What each section is made of, given the family's settings."""
    return {
        "corpus": CorpusSettings,
        "model": model_type,
        "training": TrainingSettings,
        "packaging": PackagingSettings,
        "gate": GatePolicy,
        "serving": ServingSettings,
        "resources": Resources,
    }


def known_keys(model_type: type[Frozen]) -> list[str]:
    """Every dotted key that `--set` takes, given the family's settings."""
    keys = (
        f"{section}.{key}" for section, kind in section_types(model_type).items() for key in kind.model_fields
    )
    return [*SCALARS, *keys]


def _check_keys(changes: Mapping[str, Any], model_type: type[Frozen]) -> None:
    known = known_keys(model_type)
    for key in changes:
        reachable = key in known or any(
            key.startswith(f"{entry}.") and _is_mapping(entry, model_type) for entry in known
        )
        if not reachable:
            leaf = [entry for entry in known if entry.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
            hint = f"; did you mean {leaf[0]}?" if leaf else nearest(key, known)
            raise SettingsError(f"There is no setting {key}{hint}")


def _is_mapping(dotted: str, model_type: type[Frozen]) -> bool:
    """Whether the setting holds keys of its own, which `--set` may then reach one by one."""
    section, _, key = dotted.partition(".")
    kind = section_types(model_type).get(section)
    if kind is None or key not in kind.model_fields:
        return False
    annotation = kind.model_fields[key].annotation
    return any(get_origin(entry) is dict for entry in (annotation, *get_args(annotation)))


def _place(section: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = section.get(part)
        section[part] = dict(inner) if isinstance(inner, dict) else {}
        section = section[part]
    section[path[-1]] = value


def _sections(profile: Mapping[str, Any], name: str, backbone: str | None) -> dict[str, dict[str, Any]]:
    """The profile's sections for this family; a given backbone takes the variant `pretrained`."""
    variants = profile.get("variants") or {}
    chosen = name
    if backbone is not None and f"{PRETRAINED}{name}" in variants:
        chosen = f"{PRETRAINED}{name}"
    variant = variants.get(chosen) or {}
    sections = {section: profile.get(section) or {} for section in SECTIONS}
    sections |= {"model": variant.get("model") or {}, "training": variant.get("training") or {}}
    return {section: dict(values) for section, values in sections.items()}


def _located(backbone: str) -> str:
    """A backbone that is a folder here as an absolute path; anything else (a hub id) as it is."""
    path = Path(backbone).expanduser()
    looks_like_a_path = backbone.startswith((".", "/", "~")) or backbone.count("/") > 1
    return str(path.resolve()) if path.exists() or looks_like_a_path else backbone


def _located_source(source: str) -> str:
    from genreflow.corpus.sources import SOURCES

    if source.partition("?")[0] in SOURCES or re.match(r"^\w+://", source):
        return source
    return str(Path(source).expanduser().resolve())


def _sentence(section: str, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join([section, *(str(part) for part in first["loc"])])
    given = first.get("input")
    shown = "" if isinstance(given, dict) else f", not {given!r}"
    message = _one_line(first["msg"]).removeprefix("Value error, ")
    return f"Setting {where}: {message}{shown}."


def _one_line(text: str) -> str:
    return " ".join(text.split())
