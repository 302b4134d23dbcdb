"""The corpus report: what its figures say of made rows, and a page that needs nothing else."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser
from services import CLI

from genreflow.comparison.corpus_report import describe, write_corpus_report
from genreflow.comparison.study import Table
from genreflow.features.descriptors import NAMES

GENRES = ("blues", "drum & <bass>")
CHUNKS = 4


def table(chunks: int) -> Table:
    """Clips whose chunks are alike; the tempo alone tells the genres, rms follows chroma."""
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 2
    clips = np.repeat(np.arange(30), chunks)
    features = generator.standard_normal((30, len(NAMES)))[clips]
    features += 0.1 * generator.standard_normal(features.shape)
    features[:, NAMES.index("tempo")] += 6 * labels[clips]
    features[:, NAMES.index("rms_mean")] = -2 * features[:, NAMES.index("chroma_stft_mean")]
    manifest = pd.DataFrame(
        {
            "clip_id": [f"clip-{number}" for number in range(30)],
            "genre": [GENRES[label] for label in labels],
            "seconds": 30.0,
            "artist": None,
            "near_duplicate_cluster": [str(number) for number in range(30)],
        }
    )
    length = "3 s" if chunks > 1 else "30 s"
    return Table(features.astype(np.float32), clips, manifest, GENRES, length, "made")


def test_a_description_finds_the_structure_of_generated_rows() -> None:
    found = describe(table(CHUNKS))
    best = max(found.columns, key=lambda column: column.between_genres)
    assert best.name == "tempo"
    assert best.between_genres > 0.8
    assert found.pairs[0] == ("chroma_stft_mean", "rms_mean", pytest.approx(-1.0))
    assert found.same_clip == 1.0
    assert all(column.between_clips > 0.9 for column in found.columns)
    assert found.explained.sum() == pytest.approx(1.0)
    assert (np.diff(found.explained) <= 1e-12).all()
    whole = describe(table(1))
    assert whole.same_clip is None
    assert whole.rows == whole.clips == 30


def test_a_constant_descriptor_is_no_error() -> None:
    rows = table(1)
    rows.features[:, 3] = 0.5
    assert np.isfinite(describe(rows).correlation).all()


def test_the_page_shows_both_lengths_and_loads_nothing(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "corpus.html"
    write_corpus_report([table(1), table(CHUNKS)], "music & more", path)
    text = path.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    page = browser.new_page(viewport={"width": 480, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request", lambda request: problems.append(request.url) if request.url.startswith("http") else None
    )
    page.goto(path.as_uri())
    assert page.locator("h2").all_inner_texts() == ["Clips", "Rows of 30 s", "Rows of 3 s", "Lineage"]
    assert page.locator("th", has_text="drum & <bass>").count() == 1
    assert page.locator("main img").count() == 6
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]
    assert problems == []
    page.close()


def test_the_command_describes_a_table_and_refuses_another_kind_of_file(shared: Path, tmp_path: Path) -> None:
    source = str(shared / "reference/features_30_sec.csv")
    command = [*CLI, "data", "describe", source, "-o"]
    page = tmp_path / "corpus.html"
    done = subprocess.run([*command, str(page)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1000 clips of 10 genres, 244 known artists" in page.read_text()
    refused = subprocess.run([*command, "corpus.pdf"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "A corpus report is an .html file, not corpus.pdf." in refused.stderr
