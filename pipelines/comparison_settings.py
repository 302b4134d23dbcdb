"""The settings of a comparison: its candidates, each with the settings of a run, merged and checked."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from genreflow.comparison import MOST_CANDIDATES
from genreflow.core.documents import Frozen
from genreflow.core.errors import GenreflowError, SettingsError
from genreflow.families import families, family
from genreflow.fitting import RUN_SETTINGS
from pipelines.settings import (
    SCALARS,
    SECTIONS,
    Resources,
    RunSettings,
    default_profile,
    known_keys,
    knows_key,
    located_source,
    nearest,
    read_profile,
    settings,
)

OWN_SECTIONS = ("model", "training", "resources")
"""The sections that may differ between candidates."""
AT = "@"
"""Between family and backbone."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
RESERVED = (*SCALARS, *SECTIONS, "model", "training")

log = logging.getLogger("genreflow")


class CandidateSettings(Frozen):
    """One candidate."""

    name: str
    """As it was given; else the family's, with the end of its backbone's name behind `@` where it has one."""
    run: RunSettings


class ComparisonSettings(Frozen):
    """A comparison, complete: corpus, packaging, gate and serving are the same for all candidates."""

    candidates: tuple[CandidateSettings, ...]
    folds: int = Field(default=0, ge=0)
    """Of a cross-validation over the clips outside the test split; 0 for none."""
    also_test: str | None = None
    """A source of other labelled clips that the best two candidates are scored on."""
    robustness: bool = False
    """Whether the best two candidates are scored on distorted test clips."""

    @property
    def profile(self) -> str:
        return self.run.profile

    @property
    def family(self) -> str:
        """What stands for the family in the name of a version on Kubeflow."""
        return "comparison"

    @property
    def experiment(self) -> str:
        return self.run.experiment

    @property
    def resources(self) -> Resources:
        """Of the steps that no candidate has of its own."""
        return self.run.resources

    @property
    def run(self) -> RunSettings:
        """The first candidate's settings, for what all have in common."""
        return self.candidates[0].run

    @property
    def runs(self) -> tuple[RunSettings, ...]:
        """All candidates' settings."""
        return tuple(one.run for one in self.candidates)


def comparison_settings(
    chosen: str | None = None,
    folds: int = 0,
    profile: str | None = None,
    source: str | None = None,
    backbone: str | None = None,
    protocol: str | None = None,
    assignments: Sequence[str] = (),
    checkpoint_uri: str | None = None,
    also_test: str | None = None,
    robustness: bool = False,
) -> ComparisonSettings:
    """Merge options, profile and `--set` for every candidate.

    Args:
        chosen: candidates, separated by commas: `FAMILY`, `FAMILY@BACKBONE`, `NAME=FAMILY` or
            `NAME=FAMILY@BACKBONE`; all families where None.
        folds: 0, or 2 and more.
        assignments: `KEY=VALUE` for every candidate that has the key; `FAMILY.KEY=VALUE` for those of a
            family, `NAME.KEY=VALUE` for one, whose name is `FAMILY@BACKBONE` where it has no other.
        also_test: another source that the best two are scored on.
        robustness: whether the best two are scored on distorted test clips.

    Raises:
        SettingsError: an unknown family or key, a value that does not fit, or parts that do not go together.
    """
    if folds == 1 or folds < 0:
        raise SettingsError(f"--folds is 2 or more, or omitted, not {folds}.")
    wanted = _candidate_names(chosen)
    if profile is None:
        profile = default_profile(_assigned_source(assignments) or source)
    of_profile = read_profile(profile).get("family")
    common, own = _routed(assignments, wanted)
    _check_known(common, [kind for _, kind, _ in wanted])
    takes = [kind for _, kind, _ in wanted if "backbone" in family(kind).settings_type.model_fields]
    if backbone is not None and not takes:
        raise SettingsError(
            f"None of the families {', '.join(name for name, _, _ in wanted)} has a backbone; leave "
            "--backbone away."
        )
    candidates = []
    for name, kind, named in wanted:
        weights = named or (backbone if kind in takes else None)
        given = [one for one in common if _has(one, kind)] + own[name]
        resumes = "checkpoint_uri" in family(kind).training_type.model_fields
        run = settings(
            profile,
            source,
            # the profile's own family keeps the profile's backbone
            None if kind == of_profile else kind,
            weights,
            protocol,
            given,
            checkpoint_uri if resumes else None,
        )
        candidates.append(CandidateSettings(name=name, run=run))
    if folds and any(one.run.resources.extract == "split" for one in candidates):
        raise SettingsError(
            "resources.extract=split extracts the clips of one split alone, and --folds makes others: leave "
            "one of the two away."
        )
    return ComparisonSettings(
        candidates=tuple(candidates),
        folds=folds,
        also_test=None if also_test is None else located_source(also_test),
        robustness=robustness,
    )


def with_candidates(whole: ComparisonSettings, names: Sequence[str]) -> ComparisonSettings:
    """The same comparison of these candidates only."""
    kept = tuple(one for one in whole.candidates if one.name in names)
    return whole.model_copy(update={"candidates": kept})


def features_of(candidates: Sequence[CandidateSettings]) -> tuple[int, ...]:
    """For each candidate the number of the first one with the same representation, whose features it shares.

    A backbone that is not on this machine (it may be in the cluster) cannot be compared: such a candidate
    shares with none. So it is where their extraction has other resources.
    """
    firsts: dict[tuple[str, str], int] = {}
    found = []
    for at, candidate in enumerate(candidates):
        kind = family(candidate.run.family)
        try:
            text = kind.representation(kind.settings(candidate.run.model)).canonical()
        except GenreflowError as error:
            log.info("%s shares its features with no other candidate: %s", candidate.name, error)
            found.append(at)
            continue
        resources = candidate.run.resources.model_dump_json()
        found.append(firsts.setdefault((text, resources), at))
    return tuple(found)


class _CandidateName(NamedTuple):
    """A candidate as the command line names it."""

    name: str
    family: str
    backbone: str | None


def _candidate_names(chosen: str | None) -> list[_CandidateName]:
    """The candidates that are named.

    Raises:
        SettingsError: an unknown family, one named twice, none, or too many.
    """
    texts = list(families()) if chosen is None else [text.strip() for text in chosen.split(",")]
    found: list[_CandidateName] = []
    for text in filter(None, texts):
        one = _named(text)
        if any(one.name == other.name for other in found):
            raise SettingsError(
                f"--families names {one.name} twice: a family may appear again with another backbone, as "
                "linear@musicnn,linear@descriptors, or under a name of its own, as small=mfcc_cnn."
            )
        found.append(one)
    if not found:
        raise SettingsError(f"--families names none. There are {', '.join(families())}.")
    if len(found) > MOST_CANDIDATES:
        raise SettingsError(
            f"A comparison has at most {MOST_CANDIDATES} candidates, which a workflow of Kubernetes can "
            f"hold, not {len(found)}: compare in two parts."
        )
    return found


def _named(text: str) -> _CandidateName:
    """A candidate from `FAMILY`, `FAMILY@BACKBONE`, `NAME=FAMILY` or `NAME=FAMILY@BACKBONE`.

    Raises:
        SettingsError: there is no such family, it has no backbone, or the name is no name.
    """
    given, equals, rest = text.rpartition("=")
    kind, _, backbone = rest.partition(AT)
    if kind not in families():
        raise SettingsError(
            f"There is no family {kind!r}{nearest(kind, families())} There are {', '.join(families())}."
        )
    if backbone and "backbone" not in family(kind).settings_type.model_fields:
        raise SettingsError(f"The family {kind} has no backbone: name it without {AT}{backbone}.")
    if equals and (not NAME.fullmatch(given) or given in RESERVED or given in families()):
        raise SettingsError(
            f"--families {text}: {given!r} is no name for a candidate; take letters, digits, - and _, and "
            "neither a family nor a section of the settings."
        )
    name = f"{kind}{AT}{Path(backbone.rstrip('/')).name}" if backbone else kind
    return _CandidateName(given or name, kind, backbone or None)


def _assigned_source(assignments: Sequence[str]) -> str | None:
    texts = [text for key, _, text in (one.partition("=") for one in assignments) if key.strip() == "source"]
    return texts[-1] if texts else None


def _routed(
    assignments: Sequence[str], wanted: Sequence[_CandidateName]
) -> tuple[list[str], dict[str, list[str]]]:
    """`--set` for all candidates, and for each candidate what is for it alone, without its name.

    Raises:
        SettingsError: a family is named that is not compared, or a key that is the same for all.
    """
    common: list[str] = []
    own: dict[str, list[str]] = {one.name: [] for one in wanted}
    by_prefix = {one.family: [each.name for each in wanted if each.family == one.family] for one in wanted}
    by_prefix |= {one.name: [one.name] for one in wanted if one.name not in by_prefix}
    for assignment in assignments:
        key = assignment.partition("=")[0].strip()
        if key in ("family", "backbone"):
            raise SettingsError(
                f"--set {key} is for one model; name families, and backbones behind {AT}, with --families."
            )
        prefix = max((one for one in by_prefix if key.startswith(f"{one}.")), key=len, default=None)
        if prefix is None:
            first = key.partition(".")[0].partition(AT)[0]
            if first in families():
                names = ", ".join(one.name for one in wanted)
                raise SettingsError(f"--set {key}: {first} is not compared here. Compared are {names}.")
            common.append(assignment)
            continue
        if key.removeprefix(f"{prefix}.").partition(".")[0] not in OWN_SECTIONS:
            raise SettingsError(
                f"--set {key}: between candidates only {', '.join(OWN_SECTIONS)} can differ; without "
                f"{prefix}. it is for all."
            )
        section, _, setting = key.removeprefix(f"{prefix}.").partition(".")
        if section == "training" and setting in RUN_SETTINGS:
            raise SettingsError(
                f"--set {key}: where and how fits run is the same for all candidates; omit {prefix}.."
            )
        for name in by_prefix[prefix]:
            own[name].append(assignment.strip().removeprefix(f"{prefix}."))
    return common, own


def _check_known(assignments: Sequence[str], kinds: Sequence[str]) -> None:
    """Nothing where every key is known to one of the families at least.

    Raises:
        SettingsError: names the nearest known key.
    """
    for assignment in assignments:
        key = assignment.partition("=")[0].strip()
        if "=" in assignment and not any(knows_key(key, family(kind)) for kind in kinds):
            known = sorted({entry for kind in kinds for entry in known_keys(family(kind))})
            raise SettingsError(
                f"There is no setting {key} of {', '.join(dict.fromkeys(kinds))}{nearest(key, known)}"
            )


def _has(assignment: str, kind: str) -> bool:
    key, equals, _ = assignment.partition("=")
    return not equals or knows_key(key.strip(), family(kind))
