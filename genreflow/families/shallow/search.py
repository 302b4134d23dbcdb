"""Search for a shallow classifier's parameters by cross-validation, in a file from which it goes on.

Whole groups lie on one side of a fold, so that chunks of a clip, copies of a recording and clips of an artist
never straddle. Every trial is written as soon as it is measured; a search that was interrupted, started again
with the same file, measures what is left and finds what an uninterrupted one finds.
"""

import fcntl
import hashlib
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from genreflow.core import home
from genreflow.core.errors import TrainingError, one_line
from genreflow.families.shallow import estimators
from genreflow.families.shallow.estimators import Parameters, Range

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("genreflow")
Search = Literal["none", "grid", "bayesian"]
OnTrial = Callable[[int, int, float], None]
"""Called with trials done, trials in all, and the best score so far."""


def one_thread() -> AbstractContextManager[object]:
    """A block in which BLAS has one thread.

    Its threads spin while they wait for each other: beside busy programs one is 20 times as fast as two. The
    block is around many fits: to look for the libraries takes longer than a small fit.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


@dataclass(frozen=True)
class Rows:
    """Rows of descriptors with what they are of."""

    features: NDArray[np.float32]
    """(n, features)"""
    labels: NDArray[np.int64]
    """(n,)"""
    clips: NDArray[np.int64]
    """(n,) the clip of each row: rows of one clip are chunks of it."""
    groups: NDArray[np.int64]
    """(n,) what never straddles: clips of one artist or one recording share a number."""
    augmented: NDArray[np.bool_] | None = None
    """(n,) whether a row is of an augmented copy, which is trained on and never held out; None: none is."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[Any]) -> "Rows":
        """Some rows, by number or by mask."""
        augmented = None if self.augmented is None else self.augmented[chosen]
        return Rows(
            self.features[chosen], self.labels[chosen], self.clips[chosen], self.groups[chosen], augmented
        )


@dataclass(frozen=True)
class Found:
    """What a search found."""

    parameters: dict[str, Any]
    score: float
    """Share of held-out clips with the right genre."""
    trials: int
    logits: NDArray[np.float64]
    """(n, genres) of rows that were held out; others are not numbers."""


def folds_of(rows: Rows, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold that holds each row out: (n,); -1 for rows that are always trained on.

    A genre of one group is always trained on: held out, none of it would be left.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.full(len(rows), -1, np.int64)
    pairs = np.unique(np.stack([rows.labels, rows.groups], axis=1), axis=0)
    labels, counts = np.unique(pairs[:, 0], return_counts=True)
    several = np.isin(rows.labels, labels[counts > 1])
    number = min(folds, int(counts.max(initial=0)))
    if number < 2:
        return found
    chosen = rows.take(several)
    splitter = StratifiedGroupKFold(n_splits=number, shuffle=True, random_state=seed)
    part = np.full(len(chosen), -1, np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a genre with fewer clips than folds is expected
        for fold, (_, out) in enumerate(splitter.split(chosen.features, chosen.labels, chosen.groups)):
            part[out] = fold
    found[several] = part
    # a group of several genres may have taken all of one of them
    for fold in range(number):
        rest = np.unique(rows.labels[found != fold])
        found[(found == fold) & ~np.isin(rows.labels, rest)] = -1
    return found


def held_out_logits(
    name: str, parameters: Parameters, rows: Rows, fold: NDArray[np.int64], genres: int, seed: int
) -> NDArray[np.float64]:
    """Logits of every held-out row by a model fitted without its fold: (n, genres).

    Not numbers where fold is -1, and of augmented copies: what is served is scored on clips as they are.
    """
    logits = np.full((len(rows), genres), np.nan)
    for number in range(int(fold.max(initial=-1)) + 1):
        out = fold == number
        scored = out if rows.augmented is None else out & ~rows.augmented
        if scored.any():
            fitted = fit(name, parameters, rows.take(~out), seed)
            logits[scored] = fitted.logits(rows.features[scored], genres)
    return logits


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator, and the labels of its columns."""

    estimator: Any
    classes: NDArray[np.int64]
    """Labels with training rows, ascending."""

    def logits(self, features: NDArray[np.float32], genres: int) -> NDArray[np.float64]:
        """(n, features) to (n, genres)."""
        return spread(estimators.logits(self.estimator, features), self.classes.tolist(), genres)


ABSENT_LOGIT = -30.0
"""Of a genre without a training row: a probability of zero in float32, and finite."""


def spread(logits: NDArray[np.float64], classes: Sequence[int], genres: int) -> NDArray[np.float64]:
    """Columns of some genres as columns of all: (n, classes) to (n, genres)."""
    found = np.full((len(logits), genres), ABSENT_LOGIT)
    found[:, list(classes)] = logits
    return found


def fit(name: str, parameters: Parameters, rows: Rows, seed: int) -> Fitted:
    """Fit a classifier on all rows.

    Raises:
        SettingsError: there is no such classifier or parameter.
        TrainingError: there are fewer rows than neighbours, or scikit-learn refuses them.
    """
    estimator = estimators.make(name, parameters, seed)
    classes, encoded = np.unique(rows.labels, return_inverse=True)
    try:
        estimator.fit(rows.features, encoded.astype(np.int64))
    except ValueError as error:
        raise TrainingError(f"The classifier {name} cannot be fitted: {one_line(error)}.") from error
    return Fitted(estimator, classes.astype(np.int64))


def check_neighbours(name: str, parameters: Parameters, rows: Rows, genres: Sequence[str]) -> None:
    """Refuse more neighbours than the smallest genre has rows: it could never have a majority of them.

    Raises:
        TrainingError: names genre, count and what to set.
    """
    if name != "knn":
        return
    wanted = int({**estimators.kind(name).defaults, **parameters}["n_neighbors"])
    labels, counts = np.unique(rows.labels, return_counts=True)
    smallest = int(counts.min())
    if wanted > smallest:
        genre = genres[int(labels[counts.argmin()])]
        raise TrainingError(
            f"{wanted} neighbours are more than the {smallest} training rows of {genre}, which could never "
            f"be most of them: set training.parameters.n_neighbors to {smallest} or less, or leave it to "
            "training.search=grid."
        )


def predicted_labels(
    clips: NDArray[np.int64], logits: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The clips of some rows, ascending, and the label of each by the mean probability of its rows.

    Args:
        clips: (n,) the clip of each row.
        logits: (n, genres)
    """
    found, place = np.unique(clips, return_inverse=True)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    sums = np.zeros((len(found), logits.shape[1]))
    np.add.at(sums, place, shares)
    return found, sums.argmax(axis=1).astype(np.int64)


def clip_score(rows: Rows, logits: NDArray[np.float64]) -> float:
    """Share of clips with the right genre, by the mean probability of their rows; of held-out rows alone."""
    known = np.isfinite(logits[:, 0])
    if not known.any():
        return float("nan")
    _, predicted = predicted_labels(rows.clips[known], logits[known])
    _, first = np.unique(rows.clips[known], return_index=True)
    return float((predicted == rows.labels[known][first]).mean())


def search(
    name: str,
    rows: Rows,
    genres: int,
    how: Search,
    *,
    folds: int = 5,
    trials: int = 20,
    seed: int = 42,
    storage: Path | None = None,
    fixed: Parameters | None = None,
    on_trial: OnTrial | None = None,
) -> Found:
    """The parameters with the largest share of right clips in cross-validation; of equals, the first tried.

    Args:
        name: of the classifier.
        rows: to train and hold out: never test rows.
        genres: the number of genres, also of those without a row.
        how: `grid`, `bayesian` (Optuna's tree-structured Parzen estimator), or `none`: the given parameters
            are measured.
        folds: of cross-validation, at most; see `folds_of`.
        trials: of a Bayesian search.
        storage: the file of the search; in memory where None.
        fixed: parameters that are not searched.

    Raises:
        SettingsError: there is no such classifier or parameter.
        TrainingError: the storage file is of something else.
    """
    fixed = dict(fixed or {})
    estimators.check_parameters(name, fixed)
    with one_thread():
        return _search(name, rows, genres, how, folds, trials, seed, storage, fixed, on_trial)


def _search(
    name: str,
    rows: Rows,
    genres: int,
    how: Search,
    folds: int,
    trials: int,
    seed: int,
    storage: Path | None,
    fixed: dict[str, Any],
    on_trial: OnTrial | None,
) -> Found:
    fold = folds_of(rows, folds, seed)
    smallest = _smallest_genre(rows, fold)
    cache: dict[str, NDArray[np.float64]] = {}

    def measure(parameters: Parameters) -> float:
        logits = held_out_logits(name, parameters, rows, fold, genres, seed)
        cache[json.dumps(dict(parameters), sort_keys=True)] = logits
        score = clip_score(rows, logits)
        return 0.0 if np.isnan(score) else score

    if how == "none" or fold.max(initial=-1) < 1:
        parameters = {**estimators.kind(name).defaults, **fixed}
        score = measure(parameters)
        return Found(dict(parameters), score, 1, next(iter(cache.values())))
    if how == "grid":
        candidates = [
            one
            for one in grid(name, fixed)
            if name != "knn" or "n_neighbors" in fixed or int(one["n_neighbors"]) <= smallest
        ]
        best, score, done = _grid_search(candidates, measure, storage, on_trial)
    else:
        best, score, done = _bayesian_search(name, fixed, smallest, measure, trials, seed, storage, on_trial)
    key = json.dumps(best, sort_keys=True)
    if key not in cache:
        measure(best)
    return Found(best, score, done, cache[key])


def grid(name: str, fixed: Parameters) -> list[dict[str, Any]]:
    """Every combination of the grid's values, in its order, with the fixed parameters."""
    values = {
        key: (fixed[key],) if key in fixed else options for key, options in estimators.kind(name).grid.items()
    }
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


def _smallest_genre(rows: Rows, fold: NDArray[np.int64]) -> int:
    """Fewest rows that a genre has to train on in any fold, at least 1."""
    counts = [
        np.unique(rows.labels[fold != number], return_counts=True)[1].min(initial=len(rows))
        for number in range(max(1, int(fold.max(initial=-1)) + 1))
    ]
    return max(1, int(min(counts)))


@contextmanager
def locked(storage: Path) -> Iterator[bool]:
    """Whether a search's file or folder is this process's alone, for the block; the lock lies beside it."""
    with home.writing(storage.parent):
        storage.parent.mkdir(parents=True, exist_ok=True)
        lock = storage.with_suffix(".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


@contextmanager
def _study(storage: Path | None) -> Iterator["optuna.Study"]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with ExitStack() as contexts:
        contexts.callback(optuna.logging.set_verbosity, verbosity)
        if storage is not None and not contexts.enter_context(locked(storage)):
            log.warning("Another process searches with %s: this search is kept in memory.", storage)
            storage = None
        try:
            backend = None if storage is None else JournalStorage(JournalFileBackend(str(storage)))
            study = optuna.create_study(
                storage=backend, study_name="search", direction="maximize", load_if_exists=True
            )
        except (ValueError, KeyError) as error:
            raise TrainingError(
                f"{storage} is no readable search ({one_line(error)}): delete it, and search anew."
            ) from error
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # interrupted while it was measured
        yield study


def _complete(study: "optuna.Study") -> list[Any]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _best(study: "optuna.Study", fixed: Parameters) -> tuple[dict[str, Any], float, int]:
    trials = _complete(study)
    best = max(trials, key=lambda trial: (trial.value, -trial.number))
    return {**best.params, **fixed}, float(best.value), len(trials)


def _grid_search(
    candidates: list[dict[str, Any]],
    measure: Callable[[Parameters], float],
    storage: Path | None,
    on_trial: OnTrial | None,
) -> tuple[dict[str, Any], float, int]:
    from optuna.distributions import BaseDistribution, CategoricalDistribution

    with _study(storage) as study:
        choices: dict[str, BaseDistribution] = {
            key: CategoricalDistribution(list(dict.fromkeys(one[key] for one in candidates)))
            for key in candidates[0]
        }
        done = [trial.params for trial in _complete(study)]
        for parameters in candidates:
            if parameters in done:
                continue
            study.enqueue_trial(parameters)
            trial = study.ask(choices)
            study.tell(trial, measure(trial.params))
            _report_trial(study, len(candidates), on_trial)
        return _best(study, {})


def _bayesian_search(
    name: str,
    fixed: dict[str, Any],
    smallest: int,
    measure: Callable[[Parameters], float],
    trials: int,
    seed: int,
    storage: Path | None,
    on_trial: OnTrial | None,
) -> tuple[dict[str, Any], float, int]:
    from optuna.samplers import TPESampler

    space = {
        key: _distribution(key, allowed, smallest)
        for key, allowed in estimators.kind(name).space.items()
        if key not in fixed
    }
    with _study(storage) as study:
        while (done := len(_complete(study))) < trials:
            # a seed for each trial: a search that goes on draws what it would have drawn
            study.sampler = TPESampler(seed=_seed(seed, done))
            trial = study.ask(space)
            study.tell(trial, measure({**trial.params, **fixed}))
            _report_trial(study, trials, on_trial)
        return _best(study, fixed)


def _distribution(key: str, allowed: "Range | tuple[Any, ...]", smallest: int) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(allowed, tuple):
        return CategoricalDistribution(allowed)
    if allowed.whole:
        high = min(int(allowed.high), smallest) if key == "n_neighbors" else int(allowed.high)
        return IntDistribution(int(allowed.low), high, log=allowed.log)
    return FloatDistribution(allowed.low, allowed.high, log=allowed.log)


def _seed(seed: int, trial: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {trial}".encode()).digest()[:4], "big")


def _report_trial(study: "optuna.Study", total: int, on_trial: OnTrial | None) -> None:
    if on_trial is not None:
        trials = _complete(study)
        on_trial(len(trials), total, max(float(trial.value) for trial in trials))
