"""Data sets of a hub as sources: the hub's own library, in a process of its own, against a local hub."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
from faults import Hub, serving
from servers import free_port
from sounds import genre_folder

TWO = ("jazz", "rock")
OPEN = """
import json, os, sys
from collections import Counter
from genreflow.corpus.sources import open_source
from genreflow.core.errors import CorpusError
for spec in sys.argv[1:]:
    try:
        source = open_source(spec, tuple(json.loads(os.environ.get("GENRES", '["jazz", "rock"]'))))
        fingerprint = source.resolve()
        source.fetch()
        items = {item.name: item.open().stat().st_size for item in source.items()}
        folders = sorted({item.folder for item in source.items()})
        made = {"fingerprint": fingerprint, "items": items, "notes": source.notes(), "folders": folders}
        made["genres"] = Counter(item.genre for item in source.items())
        print(json.dumps(made))
    except CorpusError as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        assert isinstance(hub, Hub)
        yield hub


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, bytes]:
    music = genre_folder(tmp_path / "music", clips=2)
    return {path.relative_to(music).as_posix(): path.read_bytes() for path in sorted(music.rglob("*.wav"))}


def opened(endpoint: str, home: Path, *specs: str, **variables: str) -> list[dict[str, Any]]:
    """What becomes of each source, one after the other."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "60",  # a busy machine takes its time
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
    }
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *specs],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def packed(clips: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in clips.items():
            info = tarfile.TarInfo(f"genres/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def table(clips: dict[str, bytes], numbers: bool) -> bytes:
    """As `datasets` writes audio and labels."""
    sounds = [{"bytes": content, "path": name.rpartition("/")[2]} for name, content in clips.items()]
    names = [name.partition("/")[0] for name in clips]
    labels = pyarrow.array([TWO.index(name) for name in names] if numbers else names)
    made = pyarrow.table({"audio": sounds, "genre" if not numbers else "label": labels})
    if numbers:
        features = {"label": {"names": list(TWO), "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    out = io.BytesIO()
    parquet.write_table(made, out)
    return out.getvalue()


def sizes(clips: dict[str, bytes]) -> dict[str, int]:
    return {name: len(content) for name, content in clips.items()}


def test_the_archive_of_a_repository_is_unpacked_and_kept(
    hub: Hub, clips: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("owner/gtzan", {"README.md": b"# x", "data/genres.tar.gz": packed(clips), "gtzan.py": b"x"})
    first, second = opened(hub.url, tmp_path, *["hf://datasets/owner/gtzan"] * 2)
    assert first["items"] == sizes(clips)
    assert second == first
    assert len([path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]) == 1


def test_parquet_files_and_genre_folders_are_clips(hub: Hub, clips: dict[str, bytes], tmp_path: Path) -> None:
    readme = {"README.md": b"x"}
    hub.add("owner/numbers", {"data/train-00000-of-00001.parquet": table(clips, numbers=True)} | readme)
    hub.add("owner/names", {"train.parquet": table(clips, numbers=False)} | readme)
    hub.add("owner/folders", {f"audio/{name}": content for name, content in clips.items()} | readme)
    specs = [f"hf://datasets/owner/{name}" for name in ("numbers@main", "names", "folders")]
    results = opened(hub.url, tmp_path, *specs)
    assert [made.get("items", made) for made in results] == [sizes(clips)] * 3


def test_all_folders_above_the_genres_are_read_from_a_repository(
    hub: Hub, clips: dict[str, bytes], tmp_path: Path
) -> None:
    files = {f"{folder}/{name}": content for folder in ("train", "test") for name, content in clips.items()}
    pictures = {f"images/{genre}/{n}.png": b"x" for genre in ("blues", *TWO) for n in range(3)}
    hub.add("owner/folders", {f"data/{name}": content for name, content in (files | pictures).items()})
    hub.add("owner/unlike", {"a/jazz/0.wav": b"x", "b/rock/0.wav": b"x"})
    made, refused = opened(hub.url, tmp_path, "hf://datasets/owner/folders", "hf://datasets/owner/unlike")
    assert made["items"] == sizes(files)
    assert made["folders"] == ["test", "train"]
    assert any("Files of 2 folders were merged: test (4), train (4)." in note for note in made["notes"])
    assert any("data/images, without files that are named like audio" in note for note in made["notes"])
    assert len([path for method, path, _ in hub.requests if method == "GET" and path.endswith(".png")]) == 0
    assert "in a (jazz) and in b (rock)" in refused["error"]


@pytest.mark.parametrize("genres", [("C+", "C#"), ("R&B/Soul", "हिप हॉप"), ("हप", "हिप"), ("k" * 300, "..")])
def test_row_labels_are_not_truncated(
    genres: tuple[str, str], hub: Hub, clips: dict[str, bytes], tmp_path: Path
) -> None:
    labels = [genres[TWO.index(name.partition("/")[0])] for name in clips]
    sounds = [{"bytes": content, "path": name.rpartition("/")[2]} for name, content in clips.items()]
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"audio": sounds, "genre": labels}), out)
    hub.add("owner/rows", {"train.parquet": out.getvalue()})
    (made,) = opened(hub.url, tmp_path, "hf://datasets/owner/rows", GENRES=json.dumps(genres))
    assert sorted(made["genres"].items()) == sorted(dict.fromkeys(genres, 2).items())


def test_the_splits_of_parquet_files_are_kept_as_folders(
    hub: Hub, clips: dict[str, bytes], tmp_path: Path
) -> None:
    rows = table(clips, numbers=True)
    hub.add(
        "owner/splits",
        {f"data/{split}-0000{n}-of-00002.parquet": rows for split in ("train", "test") for n in range(2)},
    )
    hub.add("owner/shards", {f"data/{n:04d}.parquet": rows for n in range(2)})
    splits, shards = opened(
        hub.url, tmp_path, *(f"hf://datasets/owner/{name}" for name in ("splits", "shards"))
    )
    assert splits["folders"] == ["test", "train"]
    assert len(splits["items"]) == 4 * len(clips)
    assert shards["folders"] == [""]
    assert len(shards["items"]) == 2 * len(clips)


def test_rows_without_audio_or_label_are_left_out_and_a_damaged_file_is_reported(
    hub: Hub, clips: dict[str, bytes], tmp_path: Path
) -> None:
    names = [*clips, "rock/none.wav", "jazz/unlabelled.wav", "jazz/unknown.wav"]
    sounds = [
        {"bytes": clips.get(name, b"x") if "none" not in name else None, "path": name} for name in names
    ]
    labels = [TWO.index(name.partition("/")[0]) for name in names]
    labels[-2:] = [-1, 7]
    features = {"label": {"names": list(TWO), "_type": "ClassLabel"}}
    made = pyarrow.table({"audio": sounds, "label": labels})
    out = io.BytesIO()
    parquet.write_table(
        made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), out
    )
    whole = out.getvalue()
    hub.add("owner/some", {"train.parquet": whole})
    hub.add("owner/damaged", {"train.parquet": whole[:4] + b"\xff" + whole[5:]})
    some, damaged = opened(hub.url, tmp_path, "hf://datasets/owner/some", "hf://datasets/owner/damaged")
    assert some["items"] == sizes(clips)
    assert some["notes"] == ["3 rows of hf://datasets/owner/some have no audio or no label."]
    assert "train.parquet is not readable as parquet" in damaged["error"]


def test_one_of_several_archives_is_named_and_what_is_no_source_is_reported(
    hub: Hub, clips: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("owner/two", {"a.tar.gz": packed(clips), "b.tar.gz": packed(clips)})
    hub.add("owner/text", {"README.md": b"x", "data.json": b"{}"})
    one, named, text, missing, none, nonsense = opened(
        hub.url,
        tmp_path,
        "hf://datasets/owner/two",
        "hf://datasets/owner/two/b.tar.gz",
        "hf://datasets/owner/text",
        "hf://datasets/owner/text/x.zip",
        "hf://datasets/owner/none",
        "hf://owner/text",
    )
    assert "several archives: a.tar.gz, b.tar.gz" in one["error"]
    assert named["items"] == sizes(clips)
    assert "No genre in hf://" in text["error"]
    assert "no file or folder x.zip" in missing["error"]
    assert "HF_TOKEN" in none["error"]
    assert "hf://datasets/OWNER/NAME" in nonsense["error"]


@pytest.mark.parametrize(("status", "word"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (429, "request rate")])
def test_a_hub_that_refuses_is_reported(status: int, word: str, hub: Hub, tmp_path: Path) -> None:
    hub.faults.extend([("status", status, {"Retry-After": "0"})] * 50)
    (reported,) = opened(hub.url, tmp_path, "hf://datasets/owner/gtzan")
    assert word in reported["error"]


def test_a_body_that_ends_early_is_resumed(hub: Hub, clips: dict[str, bytes], tmp_path: Path) -> None:
    archive = packed(clips)
    hub.add("owner/gtzan", {"genres.tar.gz": archive})
    hub.cut = len(archive) // 2
    (made,) = opened(hub.url, tmp_path, "hf://datasets/owner/gtzan")
    assert made["items"] == sizes(clips)
    assert hub.cut == 0


def test_a_hub_that_is_not_there_is_reported(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    (reported,) = opened(endpoint, tmp_path, "hf://datasets/owner/gtzan")
    assert "does not answer" in reported["error"]
    (reported,) = opened(endpoint, tmp_path, "hf://datasets/owner/gtzan", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in reported["error"]
