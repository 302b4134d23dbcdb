"""The six classifiers of family `shallow`: how each is made, its defaults, and what a search tries.

All of them are fitted on rows of descriptors (n, features) with labels 0 … genres - 1; what each predicts is
brought to one form by `logits`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from genreflow.core.errors import SettingsError

ClassifierName = Literal["svm", "logistic_regression", "random_forest", "decision_tree", "xgboost", "knn"]
NAMES: tuple[ClassifierName, ...] = get_args(ClassifierName)
Value = int | float | str
Parameters = Mapping[str, Value]

FLOOR = 1e-3
"""Smallest probability: counted shares (of neighbours, of leaves) are often zero, and have no logarithm."""
MAX_ITERATIONS = 3000
TREES = 100
BOOSTING_ROUNDS = 60


@dataclass(frozen=True)
class Range:
    """Numbers that a Bayesian search draws from."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Kind:
    """One of the classifiers."""

    title: str
    make: Callable[[dict[str, Any], int], Any]
    """Parameters and seed to an unfitted estimator."""
    defaults: Parameters
    grid: Mapping[str, tuple[Value, ...]]
    """What a grid search tries, the simplest models first."""
    space: Mapping[str, "Range | tuple[Value, ...]"]
    """What a Bayesian search draws from: the grid's parameters."""


def _svm(parameters: dict[str, Any], seed: int) -> Any:
    from sklearn.svm import SVC

    return _standardised(SVC(kernel="rbf", decision_function_shape="ovr", **parameters))


def _logistic_regression(parameters: dict[str, Any], seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return _standardised(LogisticRegression(max_iter=MAX_ITERATIONS, **parameters))


def _random_forest(parameters: dict[str, Any], seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return _pipeline(RandomForestClassifier(n_estimators=TREES, random_state=seed, **parameters))


def _decision_tree(parameters: dict[str, Any], seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return _pipeline(DecisionTreeClassifier(random_state=seed, **parameters))


def _xgboost(parameters: dict[str, Any], seed: int) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(
        n_estimators=BOOSTING_ROUNDS,
        tree_method="hist",
        max_bin=64,
        subsample=0.8,
        colsample_bytree=0.5,
        n_jobs=1,
        random_state=seed,
        **parameters,
    )


def _knn(parameters: dict[str, Any], seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return _standardised(KNeighborsClassifier(algorithm="brute", **parameters))


def _standardised(estimator: Any) -> Any:
    from sklearn.preprocessing import StandardScaler

    return _pipeline(StandardScaler(), estimator)


def _pipeline(*steps: Any) -> Any:
    from sklearn.pipeline import make_pipeline

    return make_pipeline(*steps)


KINDS: dict[str, Kind] = {
    "svm": Kind(
        title="support vector machine (RBF kernel)",
        make=_svm,
        defaults={"C": 5.0, "gamma": 0.0175},
        grid={"C": (0.3, 1.0, 3.0, 10.0, 30.0), "gamma": (0.003, 0.01, 0.03)},
        space={"C": Range(0.1, 100, log=True), "gamma": Range(0.001, 0.1, log=True)},
    ),
    "logistic_regression": Kind(
        title="logistic regression",
        make=_logistic_regression,
        defaults={"C": 0.1},
        grid={"C": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)},
        space={"C": Range(0.001, 10, log=True)},
    ),
    "random_forest": Kind(
        title="random forest",
        make=_random_forest,
        defaults={"max_features": 0.15, "min_samples_leaf": 1},
        grid={"min_samples_leaf": (3, 1), "max_features": (0.05, 0.15, 0.3)},
        space={
            "min_samples_leaf": Range(1, 8, whole=True),
            "max_features": Range(0.03, 0.5, log=True),
        },
    ),
    "decision_tree": Kind(
        title="decision tree",
        make=_decision_tree,
        defaults={"max_depth": 8, "min_samples_leaf": 3},
        grid={"max_depth": (3, 5, 8, 12, 20), "min_samples_leaf": (20, 10, 5, 2, 1)},
        space={"max_depth": Range(2, 20, whole=True), "min_samples_leaf": Range(1, 30, log=True, whole=True)},
    ),
    "xgboost": Kind(
        title="gradient-boosted trees (XGBoost)",
        make=_xgboost,
        defaults={"max_depth": 3, "learning_rate": 0.1},
        grid={"max_depth": (2, 4), "learning_rate": (0.05, 0.1, 0.3)},
        space={"max_depth": Range(1, 6, whole=True), "learning_rate": Range(0.03, 0.5, log=True)},
    ),
    "knn": Kind(
        title="k-nearest neighbours",
        make=_knn,
        defaults={"n_neighbors": 5, "weights": "uniform"},
        grid={"n_neighbors": (25, 15, 9, 5, 3, 1), "weights": ("uniform", "distance")},
        space={"n_neighbors": Range(1, 30, log=True, whole=True), "weights": ("uniform", "distance")},
    ),
}


def kind(name: str) -> Kind:
    """The classifier of that name.

    Raises:
        SettingsError: there is none.
    """
    if name not in KINDS:
        raise SettingsError(f"There is no classifier {name!r}; there are {', '.join(NAMES)}.")
    return KINDS[name]


def make(name: str, parameters: Parameters, seed: int) -> Any:
    """An unfitted estimator with the defaults, changed by `parameters`.

    Raises:
        SettingsError: there is no such classifier or parameter, or a value does not fit.
    """
    chosen = kind(name)
    check_parameters(name, parameters)
    return chosen.make({**chosen.defaults, **parameters}, seed)


def check_parameters(name: str, parameters: Parameters) -> None:
    """Refuse parameters that the classifier does not have, and values outside its range.

    Raises:
        SettingsError: names those that there are.
    """
    space = kind(name).space
    for key, value in parameters.items():
        if key not in space:
            raise SettingsError(
                f"The classifier {name} has no parameter {key!r}: training.parameters may hold "
                f"{', '.join(space)}."
            )
        allowed = space[key]
        if isinstance(allowed, tuple):
            if value not in allowed:
                wanted = " or ".join(map(str, allowed))
                raise SettingsError(f"training.parameters.{key} is {wanted}, not {value!r}.")
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = number and float(value).is_integer()
        if not number or float(value) <= 0 or (allowed.whole and not whole):
            wanted = "a whole number of 1 or more" if allowed.whole else "a number above 0"
            raise SettingsError(f"training.parameters.{key} is {wanted}, not {value!r}.")


def logits(estimator: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, features) to (n, classes): an SVM's decision values, else logarithms of floored probabilities."""
    if hasattr(estimator, "decision_function") and not hasattr(estimator, "predict_proba"):
        values = np.asarray(estimator.decision_function(rows), np.float64)
        return np.stack([-values, values], axis=1) if values.ndim == 1 else values
    return np.log(np.maximum(np.asarray(estimator.predict_proba(rows), np.float64), FLOOR))
