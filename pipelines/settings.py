"""The settings of a run: profile, options and `--set` merged into one frozen, checked `RunSettings`."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from genreflow.core.commands import set_option
from genreflow.core.documents import Frozen, PackagingSettings
from genreflow.core.errors import SettingsError, one_line
from genreflow.corpus.settings import CorpusSettings
from genreflow.evaluation.gate import GatePolicy
from genreflow.families import families, family
from genreflow.fitting import RUN_SETTINGS, RUN_SETTINGS_VARIABLE, Family, training_settings
from genreflow.inference.backends import AUTO, RuntimeChoice
from pipelines.resources import Resources

PROFILES = Path(__file__).parent / "profiles"
QUICKSTART, MUSIC = "quickstart", "music"
"""The profiles of runs that name none: of generated music, and of any other source."""
PRETRAINED = "pretrained_"
"""Before a family's name: the variant of a profile that is taken where a backbone is given."""
SCALARS = ("source", "family", "backbone", "experiment")
"""The settings that stand outside a section."""
SECTIONS = ("corpus", "packaging", "gate", "serving", "resources")
"""The sections of a profile that are the same for every family."""
NULL, TEXT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"
MAPPINGS = tuple(
    f"resources.{name}" for name in ("environment", "labels", "node_selector", "accelerator_node_selector")
)
"""Settings that map texts to texts."""
TEXTS = ("source", "family", "experiment", "corpus.genres", *MAPPINGS)
"""Settings made of texts: what YAML would read as a number, a boolean or null is taken as it is typed."""


class ServingSettings(Frozen):
    """Settings of the bento of a promoted model."""

    runtime: RuntimeChoice = AUTO
    """What predicts: `auto` is the fastest that passed parity; the model is evaluated with the same."""


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
        profile = _values(text) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"Profile {name} is not readable YAML: {one_line(error)}") from error
    if not isinstance(profile, dict):
        raise SettingsError(f"Profile {name} is not a mapping of settings.")
    _check_keys_of(f"Profile {name}", profile, (*SCALARS, *SECTIONS, "variants"))
    for section in (*SECTIONS, "variants"):
        _mapping(f"Profile {name}: {section}", profile.get(section))
    _check_variants(name, profile.get("variants") or {})
    return profile


def _check_variants(profile: str, variants: Mapping[str, Any]) -> None:
    """Refuse what is misspelt in any variant, also in those that this run does not take."""
    known = [*families(), *(f"{PRETRAINED}{name}" for name in families())]
    _check_keys_of(f"Profile {profile}: variants", variants, known)
    for variant, parts in variants.items():
        where = f"variants.{variant}"
        sections = _mapping(f"Profile {profile}: {where}", parts)
        _check_keys_of(f"Profile {profile}: {where}", sections, ("model", "training", "resources"))
        kind = family(variant.removeprefix(PRETRAINED))
        kinds: dict[str, type[Frozen]] = {
            "model": kind.settings_type,
            "training": kind.training_type,
            "resources": Resources,
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
    profile: str | None = None,
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
    changes = parse_assignments(assignments)
    if profile is None:
        named = family_name or backbone or {"family", "backbone", "model.backbone"} & changes.keys()
        profile = QUICKSTART if named else default_profile(changes.get("source", source))
    chosen = read_profile(profile)
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
    if name not in families():
        raise SettingsError(
            f"There is no family {name!r}{nearest(name, families())} There are {', '.join(families())}."
        )
    kind = family(name)
    sections = _sections(chosen, name, scalars["backbone"])
    _check_keys(changes, kind)
    if protocol is not None:
        sections["corpus"]["protocol"] = protocol
    if checkpoint_uri is not None:
        if "checkpoint_uri" not in kind.training_type.model_fields:
            raise SettingsError(f"The family {name} writes no checkpoints; omit --checkpoint-uri.")
        sections["training"]["checkpoint_uri"] = checkpoint_uri
    for dotted, value in changes.items():
        section, key = dotted.split(".", 1)
        _place(sections[section], key.split("."), value)
    if "backbone" in kind.settings_type.model_fields:
        if scalars["backbone"] is not None:
            sections["model"]["backbone"] = _located(str(scalars["backbone"]), kind.named_backbones)
    elif scalars["backbone"] is not None:
        raise SettingsError(
            f"The family {name} has no backbone; omit --backbone, or take --family linear or encoder."
        )
    model = checked("model", kind.settings_type, sections["model"])
    if scalars["backbone"] is not None and getattr(model, "from_scratch", None) is not None:
        raise SettingsError(
            f"The backbone {scalars['backbone']} would not be used: model.from_scratch trains from scratch. "
            f"Omit one of the two (--set model.from_scratch=null), or give profile {profile} a variant "
            f"{PRETRAINED}{name}."
        )
    if "device" in kind.training_type.model_fields:
        sections["training"].setdefault("device", sections["resources"].get("device", "auto"))
    checked("training", kind.training_type, sections["training"])
    training = training_settings(kind, model, sections["training"])
    uri = getattr(training, "checkpoint_uri", None)
    if uri is not None and "://" not in uri:
        # a step does not run in the folder where it was started from
        folder = str(Path(uri).expanduser().resolve())
        training = training.model_copy(update={"checkpoint_uri": folder})
    return RunSettings(
        profile=profile,
        source=located_source(scalars["source"]),
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


def default_profile(source: Any) -> str:
    """The profile of a run that names neither profile nor family: by whether its source is real music."""
    real = isinstance(source, str) and source.partition("?")[0] != "synthetic"
    return MUSIC if real else QUICKSTART


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
                f"--set needs key=value, such as training.epochs=3; {assignment!r} is not that."
            )
        try:
            value = _values(text, key.strip())
        except yaml.YAMLError as error:
            example = set_option("corpus.genres", ["#1 Hits", "Drum & Bass"])
            raise SettingsError(
                f"--set {assignment}: the value is not readable YAML. Texts with # : , [ ] {{ or }} in them "
                f"need double quotes, and the whole single ones, as in {example} for instance."
            ) from error
        changes[key.strip()] = "" if value is None and _is_text(key.strip()) else value
    return changes


def _values(text: str, key: str = "") -> Any:
    """The values in a YAML text, below the setting `key`; those of `TEXTS` as they are typed.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _keep_texts(node, key)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _keep_texts(node: yaml.Node, key: str) -> None:
    """Tag scalars as strings wherever the setting that they belong to is one of `TEXTS`."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            _keep_texts(value, f"{key}.{name.value}" if key else str(name.value))
            if key in MAPPINGS:
                _keep_texts(name, key)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keep_texts(item, key)
    elif _is_text(key) and not (key in SCALARS and node.tag == NULL):
        node.tag = TEXT


def _is_text(key: str) -> bool:
    return key in TEXTS or key.startswith(tuple(f"{name}." for name in MAPPINGS))


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


def section_types(kind: Family) -> dict[str, type[Frozen]]:
    """The settings type of each section, given the family."""
    return {
        "corpus": CorpusSettings,
        "model": kind.settings_type,
        "training": kind.training_type,
        "packaging": PackagingSettings,
        "gate": GatePolicy,
        "serving": ServingSettings,
        "resources": Resources,
    }


def known_keys(kind: Family) -> list[str]:
    """Every dotted key that `--set` accepts, given the family."""
    keys = (
        f"{section}.{key}" for section, type_ in section_types(kind).items() for key in type_.model_fields
    )
    return [*SCALARS, *keys]


def knows_key(key: str, kind: Family) -> bool:
    """Whether `--set` accepts a dotted key, given the family."""
    known = known_keys(kind)
    return key in known or any(key.startswith(f"{entry}.") and _is_mapping(entry, kind) for entry in known)


def _check_keys(changes: Mapping[str, Any], kind: Family) -> None:
    known = known_keys(kind)
    for key in changes:
        if not knows_key(key, kind):
            leaf = [entry for entry in known if entry.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
            hint = f"; did you mean {leaf[0]}?" if leaf else nearest(key, known)
            raise SettingsError(f"There is no setting {key}{hint}")


def _is_mapping(dotted: str, kind: Family) -> bool:
    """Whether the setting holds keys of its own, which `--set` may then reach one by one."""
    section, _, key = dotted.partition(".")
    type_ = section_types(kind).get(section)
    if type_ is None or key not in type_.model_fields:
        return False
    annotation = type_.model_fields[key].annotation
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
    sections["resources"] = {**sections["resources"], **(variant.get("resources") or {})}
    sections |= {"model": variant.get("model") or {}, "training": variant.get("training") or {}}
    return {section: dict(values) for section, values in sections.items()}


def _located(backbone: str, named: tuple[str, ...]) -> str:
    """A backbone that is a folder here as an absolute path; a name or a hub id as it is."""
    if backbone in named:
        return backbone
    path = Path(backbone).expanduser()
    looks_like_a_path = backbone.startswith((".", "/", "~")) or backbone.count("/") > 1
    return str(path.resolve()) if path.exists() or looks_like_a_path else backbone


def located_source(source: str) -> str:
    """A source that is a file or folder here as an absolute path; others as they are."""
    from genreflow.corpus.sources import SOURCES

    if source.partition("?")[0] in SOURCES or re.match(r"^\w+://", source):
        return source
    return str(Path(source).expanduser().resolve())


def _sentence(section: str, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join([section, *(str(part) for part in first["loc"] if part != "[key]")])
    given = first.get("input")
    shown = "" if isinstance(given, dict) else f", not {given!r}"
    message = one_line(first["msg"]).removeprefix("Value error, ")
    return f"Setting {where}: {message}{shown}."


def without_run_settings(training: Mapping[str, Any]) -> dict[str, Any]:
    """The training settings that enter the cache key."""
    return {name: value for name, value in training.items() if name not in RUN_SETTINGS}


def run_settings_variable(training: Mapping[str, Any]) -> dict[str, str]:
    """The environment variable with the training settings that change no result."""
    given = {name: training[name] for name in RUN_SETTINGS if name in training}
    return {RUN_SETTINGS_VARIABLE: json.dumps(given)} if given else {}
