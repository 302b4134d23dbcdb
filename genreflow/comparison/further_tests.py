"""What a comparison measures of its best models beyond the test split: another source, and robustness."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from genreflow.comparison.evaluation_page import generalisation_section, robustness_section
from genreflow.comparison.generalisation import GeneralisationDocument, generalisation, ingest_source, unseen
from genreflow.comparison.robustness import RobustnessDocument, robustness
from genreflow.core.documents import Frozen
from genreflow.corpus.store import Corpus
from genreflow.inference.loading import load_checked_classifier


class FurtherTests(Frozen):
    """Of one model; None where it was not requested."""

    name: str
    generalisation: GeneralisationDocument | None
    robustness: RobustnessDocument | None

    def sections(self) -> list[Markup]:
        """Sections of a report's page."""
        found = [generalisation_section(self.generalisation, self.name)] if self.generalisation else []
        return found + ([robustness_section(self.robustness, self.name)] if self.robustness else [])

    def sentences(self) -> list[str]:
        """For a terminal."""
        found = [f"{self.name}: {self.generalisation.headline}"] if self.generalisation else []
        if self.robustness:
            clean, clips = self.robustness.clean, self.robustness.clips
            worst = min(self.robustness.conditions, key=lambda each: each.accuracy)
            found.append(
                f"{self.name}: accuracy {clean.accuracy:.1%} on {clips} undistorted clips, "
                f"{worst.accuracy:.1%} at worst ({worst.name})."
            )
        return found


def further_tests(
    packaged: Mapping[str, Path],
    corpus: Corpus,
    also_test: str | None,
    distorted: Sequence[int],
    leaky: bool,
    scratch: Path,
) -> list[FurtherTests]:
    """Score packaged models on another source, and on the test split's clips distorted.

    Args:
        packaged: folders of packaged models of the same genres, by name.
        corpus: that they were trained on.
        also_test: a source of labelled clips; none where None.
        distorted: rows of the corpus's test clips that robustness is measured on; none for none.
        leaky: whether these clips are of a split whose figures are optimistic.
        scratch: a folder for the decoded clips of the source.

    Raises:
        CorpusError: the source has fewer than two genres in common with the models, or only clips that they
            were trained on.
    """
    classifiers = {name: load_checked_classifier(folder) for name, folder in packaged.items()}
    general: dict[str, GeneralisationDocument] = {}
    if also_test is not None:
        genres = next(iter(classifiers.values())).document.genres
        _, notes = ingest_source(also_test, genres, scratch / "also-test")
        others = Corpus.open(scratch / "also-test")
        for name, classifier in classifiers.items():
            test = unseen(others, classifier.document, notes, corpus)
            general[name] = generalisation(classifier, test)
    robust: dict[str, RobustnessDocument] = {}
    if distorted:
        robust = {name: robustness(each, corpus, distorted, leaky) for name, each in classifiers.items()}
    return [
        FurtherTests(name=name, generalisation=general.get(name), robustness=robust.get(name))
        for name in classifiers
    ]
