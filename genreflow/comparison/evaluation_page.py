"""Generalisation and robustness as sections of a page, and as a page of their own."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from genreflow.comparison import robustness
from genreflow.comparison.generalisation import GeneralisationDocument
from genreflow.comparison.robustness import RobustnessDocument
from genreflow.core.digests import text_digest
from genreflow.evaluation import figures
from genreflow.evaluation.report import page_environment, pictured

SECTIONS = "sections.html.j2"
PAGE = "evaluation_page.html.j2"


def generalisation_section(found: GeneralisationDocument, name: str) -> Markup:
    """Scores on another source: sentences, figure and table.

    Args:
        name: of the model, distinct within a page.
    """
    return _section("generalisation", found, pictured(figures.per_genre(found.per_genre)), name)


def robustness_section(found: RobustnessDocument, name: str) -> Markup:
    """Scores under distortions: figure and table.

    Args:
        name: of the model, distinct within a page.
    """
    return _section("robustness", found, pictured(robustness.figure(found)), name)


def write_page(title: str, sections: Sequence[Markup], path: Path) -> None:
    """Write a page of sections; everything in it is inline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_environment().get_template(PAGE).render(title=title, sections=sections))


def _section(kind: str, found: object, figure: dict[str, str], name: str) -> Markup:
    template = _environment().get_template(SECTIONS)
    anchor = f"{kind}-{text_digest([name])[:8]}"
    section: Markup = getattr(template.module, kind)(found, figure, name, anchor)
    return section


def _environment() -> Environment:
    return page_environment(Path(__file__).parent)
