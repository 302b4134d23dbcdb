"""What messages print to be pasted into a shell: it is pasted into one here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sounds import tone, write

from genreflow.core.commands import flow, set_option
from genreflow.core.errors import CorpusError, SettingsError
from genreflow.core.genres import genre_key
from genreflow.corpus.sources import open_source
from pipelines.settings import settings

NAMES = [
    ["polka", "waltz"],
    ["1", "2", "3"],
    ["no", "null", "yes"],
    ["#1 Hits", "Drum & Bass"],
    ["Rock 'n' Roll", '7" singles', "back\\slash"],
    ["a, b", "[c]", "{d}: e", "*f", "- g", "~", "@h", "`date`", "$(date)", "$HOME", "!!", "%i", "|", ">"],
    ["1.10", "007", "0x1F", "1e3", "12:30", "2019-01-01", "inf", "<<", "="],
    ["हिप हॉप", "🎸", "Élektro", "\u202egpj", "new\nline", "tab\tbed"],
]


def pasted(command: str) -> list[str]:
    """The arguments that a program gets when this is pasted after its name."""
    python = f"{shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    done = subprocess.run(
        ["bash", "-c", f"{python} {command}"], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    arguments: list[str] = json.loads(done.stdout)
    return arguments


def hint(message: str) -> str:
    """The option in a message, from its name to the words that follow it."""
    found = re.search(
        r"--(set|source) .+?(?= those are| it is left out| they are left out| for instance)", message
    )
    assert found, message
    return found[0]


def clips(root: Path, genres: list[str], count: int = 2) -> Path:
    for genre in genres:
        for number in range(count):
            write(root / genre.replace("/", "_") / f"{number}.wav", tone())
    return root


def refusal(source: Path | str, genres: tuple[str, ...]) -> str:
    with pytest.raises(CorpusError) as caught:
        open_source(str(source), genres)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("names", NAMES)
def test_the_genres_of_a_folder_can_be_pasted(names: list[str], tmp_path: Path) -> None:
    source = clips(tmp_path / "music", names)
    option, assignment = pasted(hint(refusal(source, ("jazz", "rock"))))
    assert option == "--set"
    chosen = settings(source=str(source), assignments=[assignment]).corpus.genres
    assert sorted(chosen) == sorted(names)
    assert {item.genre for item in open_source(str(source), chosen).items()} == set(names)


@pytest.mark.parametrize("names", NAMES)
def test_the_labels_of_a_table_can_be_pasted(names: list[str], tmp_path: Path) -> None:
    if any("\n" in name for name in names):
        names = [name for name in names if "\n" not in name]
    rows = [{"path": f"{n}.wav", "label": name} for n, name in enumerate(2 * names)]
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    (tmp_path / "0.wav").touch()
    spec = str(tmp_path / "clips.csv")
    _, assignment = pasted(hint(refusal(spec, ("jazz", "rock"))))
    chosen = settings(source=spec, assignments=[assignment]).corpus.genres
    assert len(list(open_source(spec, chosen).items())) == len(rows)


@pytest.mark.parametrize("names", NAMES)
def test_leaving_out_a_genre_can_be_pasted(names: list[str], tmp_path: Path) -> None:
    source = clips(tmp_path / "music", names)
    _, assignment = pasted(hint(refusal(source, (*names, "jazz"))))
    assert settings(source=str(source), assignments=[assignment]).corpus.genres == tuple(names)


def test_the_command_line_accepts_its_own_hints(tmp_path: Path) -> None:
    names = ["#1 Hits", "1", "no", "Rock 'n' Roll"]
    source = clips(tmp_path / "it's music", names)
    command = [sys.executable, "-m", "pipelines.cli", "compile", "-o", str(tmp_path / "run.yaml")]
    line = (
        f"{shlex.join(command)} --source {shlex.quote(str(source))} {hint(refusal(source, ('jazz', 'rock')))}"
    )
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, env=os.environ.copy()
    )
    assert done.returncode == 0, done.stderr
    inputs = yaml.safe_load((tmp_path / "run.yaml").read_text().split("\n---\n")[0])["root"][
        "inputDefinitions"
    ]
    corpus = json.loads(inputs["parameters"]["corpus_settings"]["defaultValue"])
    assert sorted(corpus["genres"]) == sorted(names)


def test_naming_a_table_s_columns_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "it's $HOME & more"
    clips(folder, ["jazz", "rock"])
    rows = [{"path": f"{genre}/{n}.wav", "style": genre} for genre in ("jazz", "rock") for n in range(2)]
    pd.DataFrame(rows).to_csv(folder / "clips.csv", index=False)
    _, spec = pasted(hint(refusal(folder / "clips.csv", ("jazz", "rock"))))
    named = spec.replace("path=COLUMN", "path=path").replace("label=COLUMN", "label=style")
    assert len(list(open_source(named, ("jazz", "rock")).items())) == 4


def test_the_folder_of_synthesised_music_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "it's made & kept"
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "data",
        "synthesize",
        str(folder),
        "--clips",
        "1",
        "--seconds",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    _, _, line = done.stdout.strip().partition("train on them with: genreflow ")
    assert pasted(line) == ["run", "--source", str(folder)]


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(st.lists(text.filter(str.strip), min_size=2, max_size=5, unique_by=genre_key))
@example(["=", "<<", "~", "", "\ufeff", "\x85", "\u2028"])
def test_any_texts_come_back_from_yaml(names: list[str]) -> None:
    written = flow(names)
    assert "\n" not in written
    assert yaml.safe_load(written) == names


@hypothesis_settings(max_examples=25)
@given(st.lists(text, min_size=1, max_size=20))
def test_any_texts_come_back_from_the_shell(names: list[str]) -> None:
    options = " ".join(set_option("corpus.genres", [name]) for name in names)
    given_back = pasted(options)[1::2]
    assert [yaml.safe_load(each.partition("=")[2]) for each in given_back] == [[name] for name in names]


@pytest.mark.parametrize(
    ("typed", "genres"),
    [
        ("[1,2,3]", ("1", "2", "3")),
        ("[no, null, yes]", ("no", "null", "yes")),
        ("[1.10, 007, ~, on, 2019-01-01]", ("1.10", "007", "~", "on", "2019-01-01")),
        ('["#1 Hits", Drum & Bass]', ("#1 Hits", "Drum & Bass")),
    ],
)
def test_genres_are_texts_however_yaml_reads_them(
    typed: str, genres: tuple[str, ...], tmp_path: Path
) -> None:
    assert settings(assignments=[f"corpus.genres={typed}"]).corpus.genres == genres
    profile = tmp_path / "mine.yaml"
    profile.write_text(f"source: synthetic\ncorpus: {{genres: {typed}, seed: 7}}\n")
    chosen = settings(str(profile), assignments=["model.from_scratch={model_type: hubert}"])
    assert chosen.corpus.genres == genres
    assert chosen.corpus.seed == 7


def test_genres_that_yaml_takes_for_a_comment_are_refused_with_the_way_to_quote_them() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(assignments=["corpus.genres=[#1 Hits, Drum & Bass]"])
    _, assignment = pasted(hint(str(caught.value).replace("--set", "", 1)))
    assert settings(assignments=[assignment]).corpus.genres == ("#1 Hits", "Drum & Bass")


def test_other_texts_may_look_like_numbers_too(tmp_path: Path) -> None:
    chosen = settings(assignments=["experiment=2024", "resources.environment={NO: 1.10, A: null}"])
    assert chosen.experiment == "2024"
    assert chosen.resources.environment == {"NO": "1.10", "A": "null"}
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "source: synthetic\nexperiment: 2024\nresources: {environment: {NO: 007, B: yes}, batch: 4}\n"
        "variants: {encoder: {model: {from_scratch: {model_type: hubert}}}}\n"
    )
    chosen = settings(str(profile))
    assert chosen.experiment == "2024"
    assert chosen.resources.environment == {"NO": "007", "B": "yes"}
    assert chosen.resources.batch == 4
