"""A folder against the published corpus: what is missing, altered, duplicated, unreadable, unknown."""

import shutil
from pathlib import Path

import pytest
from sounds import tone, write

from genreflow.core.errors import CorpusError
from genreflow.corpus import gtzan
from genreflow.corpus.known import KNOWN
from genreflow.corpus.verify import Findings, matching_index, verify

INDEXES = {name: corpus.clips() for name, corpus in KNOWN.items()}


@pytest.fixture
def mini(shared: Path, tmp_path: Path) -> Path:
    """A copy of gtzan-mini that a test may spoil."""
    for path in sorted((shared / "gtzan-mini" / "genres").glob("*/*.wav")):
        target = tmp_path / "mini" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    return tmp_path / "mini"


def found(folder: Path) -> Findings:
    return verify(folder, "gtzan-mini", INDEXES["gtzan-mini"])


def test_a_whole_corpus_has_nothing_wrong(mini: Path) -> None:
    findings = found(mini)
    assert findings.ok
    assert (findings.whole, findings.expected) == (100, 100)
    assert findings.lines() == [f"{mini}: 100 of 100 clips of gtzan-mini are as published; nothing is wrong."]


def test_everything_that_is_wrong_is_named(mini: Path, shared: Path) -> None:
    originals = shared / "gtzan-mini" / "genres"
    (mini / "blues" / "blues.00000.wav").unlink()
    (mini / "jazz" / "jazz.00000.wav").unlink()
    write(mini / "jazz" / "jazz.00000.wav", tone(30.0))
    (mini / "rock" / "rock.00001.wav").unlink()
    shutil.copy(originals / "rock" / "rock.00002.wav", mini / "rock" / "rock.00001.wav")
    (mini / "pop" / "pop.00000.wav").unlink()
    (mini / "pop" / "pop.00000.wav").write_text("<html>")
    (mini / "pop" / "pop.00001.wav").unlink()
    (mini / "pop" / "pop.00001.wav").symlink_to(mini / "nowhere")
    shutil.copy(originals / "metal" / "metal.00003.wav", mini / "metal" / "my\ncopy.wav")
    findings = found(mini)
    assert findings.missing == ("blues.00000",)
    assert findings.altered == {
        "jazz/jazz.00000.wav": "other bytes than published, 30.0 s of wav at 22050 Hz",
        "rock/rock.00001.wav": "holds the clip rock.00002",
    }
    assert set(findings.unreadable) == {"pop/pop.00000.wav", "pop/pop.00001.wav"}
    assert findings.duplicated == (
        ("metal/metal.00003.wav", "metal/my\ncopy.wav"),
        ("rock/rock.00001.wav", "rock/rock.00002.wav"),
    )
    assert findings.unknown == ("metal/my\ncopy.wav",)
    assert findings.whole == 95
    assert findings.verdict().endswith("1 missing, 2 altered, 2 unreadable, 2 duplicated, 1 unknown.")
    assert all("\n" not in line for line in findings.lines())


def test_repetitions_that_were_published_are_reported_and_no_error(tmp_path: Path) -> None:
    write(tmp_path / "pop" / "pop.00054.wav", tone())
    shutil.copy(tmp_path / "pop" / "pop.00054.wav", tmp_path / "pop" / "pop.00060.wav")
    import hashlib

    md5 = hashlib.md5((tmp_path / "pop" / "pop.00054.wav").read_bytes()).hexdigest()
    findings = verify(tmp_path, "two", {"pop.00054": md5, "pop.00060": md5})
    assert findings.ok
    assert findings.published_twice == (("pop/pop.00054.wav", "pop/pop.00060.wav"),)


def test_the_index_of_gtzan_has_its_published_repetitions() -> None:
    md5s = gtzan.md5s()
    assert md5s["pop.00054"] == md5s["pop.00060"]
    assert len(md5s) == 1000


def test_the_smallest_index_that_has_every_clip_is_taken(mini: Path) -> None:
    assert matching_index(mini, INDEXES) == "gtzan-mini"
    write(mini / "jazz" / "jazz.00003.wav", tone())
    assert matching_index(mini, INDEXES) == "gtzan"


def test_a_folder_of_other_music_cannot_be_held_against_it(tmp_path: Path) -> None:
    write(tmp_path / "jazz" / "mine.wav", tone())
    with pytest.raises(CorpusError, match="nothing to hold it against"):
        found(tmp_path)
