"""Fuzzing of what reads files from anywhere; see `fuzzing.py`.

As a test the search is short, of a number of inputs. `make bench` searches for a time
(`GENREFLOW_FUZZ_SECONDS`); what it finds becomes a test.
"""

import base64
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import soundfile
from sounds import AV_CODECS, tone, write, write_silent_film

SECONDS = int(os.environ.get("GENREFLOW_FUZZ_SECONDS", "0"))
"""Of search, a target; 0 for `INPUTS` inputs."""
INPUTS = 3_000
INPUT_SECONDS = 20
"""An input that takes longer is a finding."""
MEMORY_MIB = 1_500
"""A process that takes more is a finding: most of it is what 60 s of audio at 768 kHz may take."""
MOST_INPUT_BYTES = 20_000

pytestmark = pytest.mark.timeout(SECONDS + 300)


@dataclass(frozen=True)
class Found:
    """What a search ended with."""

    inputs: int
    """How many were tried."""
    seeds: int
    finding: str | None
    """What went wrong, and the input in base64."""


def fuzz(target: str, folder: Path, seconds: int = SECONDS) -> Found:
    """Search in a process of its own, beginning with the files in `folder / "seeds"`.

    Args:
        seconds: of search; 0 for `INPUTS` inputs.
    """
    extent = [f"-max_total_time={seconds}"] if seconds else [f"-runs={INPUTS}"]
    seeds, kept, findings = (folder / name for name in ("seeds", "kept", "findings"))
    kept.mkdir()
    findings.mkdir()
    done = subprocess.run(
        [
            # a shell between: a process's peak of memory begins with what the one that started it holds
            *("sh", "-c", '"$@"; exit $?', "sh"),
            *(sys.executable, str(Path(__file__).with_name("fuzzing.py")), target),
            *(*extent, f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"),
            *(f"-max_len={MOST_INPUT_BYTES}", f"-artifact_prefix={findings}/", "-print_final_stats=1"),
            # all formats are kept, and whole: what tells them apart lies in C, whose branches are not seen
            *("-keep_seed=1", "-len_control=0"),
            *(str(kept), str(seeds)),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"TMPDIR": str(folder)},
        check=False,
    )
    inputs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    finding = None
    if done.returncode:
        shown = [
            f"{path.name}: {base64.b64encode(path.read_bytes()).decode()}" for path in findings.iterdir()
        ]
        finding = "\n".join([done.stderr[-3000:], *shown])
    return Found(int(inputs[1]) if inputs else 0, len(list(seeds.iterdir())), finding)


def sounds(folder: Path) -> None:
    """A tenth of a second in every format that libsndfile or the tests' encoders write."""
    folder.mkdir()
    for kind in soundfile.available_formats():
        if kind == "SD2":  # it writes a second file beside
            continue
        for subtype in soundfile.available_subtypes(kind):
            content = io.BytesIO()
            try:
                soundfile.write(content, tone(0.1, 8_000), 8_000, format=kind, subtype=subtype)
            except soundfile.LibsndfileError:  # of some it can only read
                continue
            (folder / f"{kind}-{subtype}").write_bytes(content.getvalue())
    for kind in AV_CODECS:
        write(folder / f"sound.{kind}", tone(0.1, 48_000), 48_000)
    write(folder / "stereo.wav", np.stack([tone(0.1, 8_000)] * 2, axis=1), 8_000)
    write_silent_film(folder / "film.mp4")


MEMBERS = {"jazz/a.wav": bytes(700), f"jazz/{'long' * 30}.wav": b"y", "rock/é🎷.wav": b""}


NO_FILES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)


def tars(folder: Path) -> None:
    """Every flavour and compression, with links, devices and pipes in it."""
    folder.mkdir()
    for flavour in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        plain = folder / f"{flavour}.tar"
        with tarfile.open(plain, "w", format=flavour) as tar:
            for name, content in MEMBERS.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for kind in (
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.FIFOTYPE,
                tarfile.DIRTYPE,
            ):
                info = tarfile.TarInfo(f"jazz/{kind.decode()}")
                info.type, info.linkname = kind, "a.wav"
                tar.addfile(info)
        for compression in ("gzip", "bz2", "zstd", "lz4"):
            with pa.output_stream(
                str(folder / f"{flavour}.{compression}"), compression=compression
            ) as packed:
                packed.write(plain.read_bytes())


def zips(folder: Path) -> None:
    folder.mkdir()
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(folder / f"{method}.zip", "w", method) as packed:
            for name, content in MEMBERS.items():
                packed.writestr(name, content)
            packed.mkdir("jazz/folder")
            link = zipfile.ZipInfo("jazz/link")
            link.external_attr = 0o120777 << 16
            packed.writestr(link, "a.wav")
        with (
            zipfile.ZipFile(folder / f"{method}-64.zip", "w", method) as packed,
            packed.open("jazz/a.wav", "w", force_zip64=True) as member,
        ):
            member.write(bytes(300))


CLIPS = [(f"{genre}/{number}.wav", genre) for genre in ("jazz", "rock") for number in range(3)]


def csvs(folder: Path) -> None:
    folder.mkdir()
    for number, mark in enumerate(",;\t"):
        lines = [f"path{mark}label", *(f'"{path}"{mark}{label}' for path, label in CLIPS)]
        (folder / f"{number}.csv").write_text("\n".join(lines) + "\n")


def parquets(folder: Path) -> None:
    """Tables of paths and labels, and what a hub has: bytes and class numbers."""
    folder.mkdir()
    paths, labels = map(list, zip(*CLIPS, strict=True))
    named = pa.table({"path": paths, "label": labels})
    audio = [{"bytes": b"abc", "path": path} for path in paths]
    features = '{"info": {"features": {"label": {"names": ["jazz", "rock"], "_type": "ClassLabel"}}}}'
    held = pa.table({"audio": audio, "label": [0, 0, 0, 1, 1, 1]})
    held = held.replace_schema_metadata({"huggingface": features})
    for compression in ("none", "snappy", "gzip", "zstd"):
        parquet.write_table(named, folder / f"named-{compression}", compression=compression)
        parquet.write_table(held, folder / f"held-{compression}", compression=compression)


SEEDS = {"decode": sounds, "tar": tars, "zip": zips, "csv": csvs, "parquet": parquets}


@pytest.mark.parametrize("target", SEEDS)
def test_no_input_ends_in_anything_but_success_or_an_error_message(target: str, tmp_path: Path) -> None:
    SEEDS[target](tmp_path / "seeds")
    found = fuzz(target, tmp_path)
    assert found.finding is None, found.finding
    assert found.inputs > found.seeds
    print(f"\n{target}: {found.inputs:,} inputs")


@pytest.mark.parametrize("target", ["raising", "crashing"])
def test_a_bug_is_found_and_its_input_shown(target: str, tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "seed").write_bytes(b"bug!")
    found = fuzz(target, tmp_path)
    assert found.finding is not None
    shown = re.search(r"crash-\w+: (\S+)", found.finding)
    assert shown is not None, found.finding
    assert base64.b64decode(shown[1]).startswith(b"bug")
