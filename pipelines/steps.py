"""The steps of the pipelines, in order: what the DAGs, the local runner and the display read."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Step:
    """One step: its component's name, and how it is run."""

    name: str
    """The component's; in brackets behind it, where there are several of one component, which it is."""
    title: str
    """As Kubeflow's page shows it."""
    cached: bool = True
    light: bool = False
    """Whether it only lists or registers, and needs little memory."""
    accelerated: bool = False
    """Whether it runs the model, on an accelerator where one is configured."""
    mounted: bool = False
    """Whether it reads source or backbone, and needs the volumes."""
    conditional: bool = False
    """Whether it runs only where it is needed."""
    independent_of: tuple[str, ...] = ()
    """Earlier steps that it does not wait for."""
    memory: str = "512Mi"
    """What its pod reserves: the most that was measured (docs/kubeflow.md), with a tenth to spare."""
    task: str = ""
    """KFP's name of it, where it is not the component's."""

    @property
    def component(self) -> str:
        """Its component's name."""
        return self.name.partition("[")[0]

    @property
    def task_name(self) -> str:
        """KFP's name of it."""
        return self.task or self.name.replace("_", "-")


STEPS: tuple[Step, ...] = (
    Step("resolve", "Resolve source", cached=False, light=True, mounted=True),
    Step("ingest", "Ingest corpus", mounted=True),
    Step("split", "Split corpus", light=True),
    Step(
        "extract_features",
        "Extract features",
        accelerated=True,
        mounted=True,
        independent_of=("split",),
        memory="1300Mi",
    ),
    Step("fine_tune", "Fine-tune model", accelerated=True, mounted=True, memory="900Mi"),
    Step("package", "Package model", memory="1800Mi"),
    Step("evaluate", "Evaluate model", accelerated=True, memory="1200Mi"),
    Step("register", "Register version", cached=False, light=True),
    Step("promote", "Promote or keep", cached=False, memory="1200Mi"),
    Step("build", "Build bento", cached=False, conditional=True, memory="1200Mi"),
)


COMPARISON_STEPS: tuple[Step, ...] = (
    Step("resolve_candidates", "Resolve source", cached=False, light=True, mounted=True),
    *(one for one in STEPS if one.name in ("ingest", "split", "extract_features")),
    Step("train_candidate", "Train", accelerated=True, mounted=True, memory="1800Mi"),
    Step("compare", "Compare, promote or keep", cached=False, memory="1200Mi"),
    *(one for one in STEPS if one.name == "build"),
)
"""Of a comparison's components, each once."""
OF_CANDIDATES = ("extract_features", "train_candidate")
"""Components that a comparison has several steps of."""


def comparison_steps(candidates: Sequence[str], features_of: Sequence[int]) -> tuple[Step, ...]:
    """The steps of a comparison, in order.

    Args:
        candidates: their names.
        features_of: for each candidate, the number of the one whose extraction it shares; its own where it
            shares none.
    """
    extracted = [at for at in range(len(candidates)) if features_of[at] == at]
    extractions = [
        _of_candidate("extract_features", number, _sharing(candidates, features_of, at))
        for number, at in enumerate(extracted)
    ]
    trainings = [_of_candidate("train_candidate", at, name) for at, name in enumerate(candidates)]
    apart = [one.name for one in (*extractions, *trainings)]
    own = {one.name: {one.name} for one in extractions}
    for at, one in enumerate(trainings):
        own[one.name] = {one.name, extractions[extracted.index(features_of[at])].name}
    found: list[Step] = []
    for each in COMPARISON_STEPS:
        if each.name not in OF_CANDIDATES:
            found.append(each)
            continue
        for one in extractions if each.name == "extract_features" else trainings:
            others = tuple(name for name in apart if name not in own[one.name])
            found.append(replace(one, independent_of=(*one.independent_of, *others)))
    return tuple(found)


def numbered(tasks: Collection[str]) -> tuple[Step, ...]:
    """The steps of a comparison of which the names of KFP's tasks are known, candidates by their numbers."""
    found: list[Step] = []
    for each in COMPARISON_STEPS:
        if each.name not in OF_CANDIDATES:
            found.append(each)
            continue
        several = (name for name in tasks if re.fullmatch(rf"{each.task_name}(-\d+)?", name))
        numbers = sorted(int(name.removeprefix(each.task_name).lstrip("-") or 1) for name in several)
        found += [_of_candidate(each.name, number - 1, str(number)) for number in numbers]
    return tuple(found)


def _of_candidate(component: str, number: int, which: str) -> Step:
    """A step of one candidate, as KFP counts the tasks of a component."""
    plain = step(component)
    task = component.replace("_", "-") + (f"-{number + 1}" if number else "")
    return replace(plain, name=f"{component}[{which}]", title=f"{plain.title}: {which}", task=task)


def _sharing(candidates: Sequence[str], features_of: Sequence[int], at: int) -> str:
    """The names of the candidates that share an extraction."""
    return ", ".join(name for name, of in zip(candidates, features_of, strict=True) if of == at)


def step(name: str) -> Step:
    """The step of that component."""
    return next(one for one in (*STEPS, *COMPARISON_STEPS) if one.name == name)
