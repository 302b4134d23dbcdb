"""Fetching archives over HTTP: resumed, checked, tried again so many times, and reported in a sentence."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from clocks import clock
from faults import Web, serving
from servers import free_port
from sounds import genre_folder

from genreflow.core import home
from genreflow.core.errors import CorpusError, FetchError
from genreflow.corpus import download as downloading
from genreflow.corpus import known
from genreflow.corpus.download import download
from genreflow.corpus.known import KNOWN, KnownCorpus, fetch_address, fetch_known
from genreflow.corpus.sources import open_source
from pipelines import cli
from pipelines.settings import settings

CONTENT = bytes(range(256)) * 8000  # 2 MB
MD5 = hashlib.md5(CONTENT).hexdigest()
TWO = ("jazz", "rock")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(downloading, "FIRST_PAUSE_SECONDS", 0.01)
    with serving(Web({"/a.tar": CONTENT})) as web:
        yield web


@pytest.fixture
def corpus(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownCorpus:
    """A published corpus of four clips, at the web server."""
    music = genre_folder(tmp_path / "published", clips=2)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(music, "genres")
        # as GTZAN's own archive has one
        tar.add(__file__, "genres/bextract_single.mf")
    web.files["/mirror/few.tar.gz"] = web.files["/home/few.tar.gz"] = packed.getvalue()
    clips = {path.stem: hashlib.md5(path.read_bytes()).hexdigest() for path in music.rglob("*.wav")}
    corpus = KnownCorpus(
        name="gtzan-mini",
        archive="few.tar.gz",
        md5=hashlib.md5(packed.getvalue()).hexdigest(),
        hub_path=None,
        addresses=(f"{web.url}/home/few.tar.gz",),
        clips=lambda: clips,
    )
    monkeypatch.setitem(KNOWN, "gtzan-mini", corpus)
    return corpus


def asked(web: Web, header: str = "Range") -> list[str | None]:
    return [headers.get(header) for _, _, headers in web.requests]


def refusal(*addresses: str, target: Path, md5: str | None = MD5) -> str:
    with pytest.raises(FetchError) as caught:
        download(addresses, target, md5)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_once_with_its_progress(web: Web, tmp_path: Path) -> None:
    reported: list[tuple[int, int | None]] = []
    for _ in range(2):
        download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5, lambda *now: reported.append(now))
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert len(web.requests) == 1
    assert reported[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == ["a.tar"]


def test_a_download_without_a_content_length_is_checked_by_md5(web: Web, tmp_path: Path) -> None:
    web.lengths = False
    download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    web.faults.append(("truncate", 900_000))
    assert "gives another file" in refusal(f"{web.url}/a.tar", target=tmp_path / "b.tar")


def test_a_body_that_ends_early_is_resumed(web: Web, tmp_path: Path) -> None:
    web.faults.extend([("truncate", 700_000), ("truncate", 400_000)])
    download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert asked(web) == [None, "bytes=700000-", "bytes=1100000-"]


def test_a_killed_fetch_process_is_resumed(web: Web, tmp_path: Path) -> None:
    web.faults.append(("truncate", 900_000))
    web.faults.extend([("status", 500)] * 10)
    refusal(f"{web.url}/a.tar", target=tmp_path / "a.tar")
    web.faults.clear()
    web.requests.clear()
    download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    assert asked(web) == ["bytes=900000-"]


def test_a_file_that_changed_on_the_server_is_fetched_from_the_start(web: Web, tmp_path: Path) -> None:
    web.files["/a.tar"] = bytes(len(CONTENT))
    web.faults.append(("truncate", 900_000))
    web.faults.extend([("status", 500)] * 10)
    refusal(f"{web.url}/a.tar", target=tmp_path / "a.tar")
    web.faults.clear()
    web.files["/a.tar"] = CONTENT
    download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_a_download_from_a_server_without_ranges_starts_from_the_beginning(web: Web, tmp_path: Path) -> None:
    web.ranges = False
    web.faults.append(("truncate", 900_000))
    download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_a_part_that_was_damaged_here_is_fetched_anew(web: Web, tmp_path: Path) -> None:
    web.faults.append(("truncate", 900_000))
    web.faults.extend([("status", 500)] * 10)
    refusal(f"{web.url}/a.tar", target=tmp_path / "a.tar")
    web.faults.clear()
    (tmp_path / "a.tar.partial").write_bytes(bytes(900_000))
    download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_a_file_of_another_md5_is_thrown_away(web: Web, tmp_path: Path) -> None:
    web.files["/a.tar"] = b"<html>sign in</html>"
    assert "gives another file than expected" in refusal(f"{web.url}/a.tar", target=tmp_path / "a.tar")
    assert not (tmp_path / "a.tar.partial").exists()


@pytest.mark.parametrize(("status", "word"), [(404, "404"), (401, "token"), (403, "token"), (410, "410")])
def test_a_permanent_error_is_reported_at_once(web: Web, tmp_path: Path, status: int, word: str) -> None:
    web.faults.append(("status", status))
    assert word in refusal(f"{web.url}/a.tar", target=tmp_path / "a.tar")
    assert len(web.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for_as_long_as_it_says(
    web: Web, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(downloading.time, "sleep", waited.append)
    soon = formatdate(downloading.time.time() + 30, usegmt=True)
    web.faults.extend([("status", status, {"Retry-After": "7"}), ("status", status, {"Retry-After": soon})])
    download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    assert waited[0] == 7
    assert 25 < waited[1] <= 30


def test_how_long_a_busy_server_is_waited_for_does_not_depend_on_this_machines_clock(
    web: Web, tmp_path: Path
) -> None:
    soon = formatdate(downloading.time.time() + 2, usegmt=True)
    web.faults.append(("status", 503, {"Retry-After": soon}))
    code = "import sys; from pathlib import Path; from genreflow.corpus import download\n"
    code += "download.time.sleep = print\n"  # libfaketime cannot do it
    code += "download.download([sys.argv[1]], Path(sys.argv[2]), sys.argv[3])"
    command = [sys.executable, "-c", code, f"{web.url}/a.tar", str(tmp_path / "a.tar"), MD5]
    wrong = os.environ | clock("-1d")
    done = subprocess.run(command, env=wrong, capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) <= 2


def test_a_server_that_stays_busy_is_given_up(web: Web, tmp_path: Path) -> None:
    web.faults.extend([("status", 503)] * 100)
    message = refusal(f"{web.url}/a.tar", target=tmp_path / "a.tar")
    assert "503" in message
    assert "5 times in a row" in message
    assert len(web.requests) == downloading.ATTEMPTS


def test_a_retry_after_of_an_hour_is_not_waited_for(web: Web, tmp_path: Path) -> None:
    web.faults.append(("status", 429, {"Retry-After": "3600"}))
    assert "requires a wait of 3600 s" in refusal(f"{web.url}/a.tar", target=tmp_path / "a.tar")


def test_a_server_that_is_not_there_is_reported_without_what_is_secret_in_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "FIRST_PAUSE_SECONDS", 0.01)
    message = refusal(f"http://me:secret@127.0.0.1:{free_port()}/a.tar?sig=hush", target=tmp_path / "a.tar")
    assert "was interrupted" in message
    assert "secret" not in message
    assert "hush" not in message


def test_the_next_mirror_is_tried_where_one_fails(web: Web, tmp_path: Path) -> None:
    web.files["/wrong/a.tar"] = b"something else"
    mirrors = [f"{web.url}/{place}/a.tar" for place in ("nowhere", "wrong")]
    download([*mirrors, f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)
    message = refusal(*mirrors, target=tmp_path / "b.tar")
    assert "404" in message
    assert "another file" in message


def test_a_stream_that_does_not_end_is_given_up_and_thrown_away(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "MOST_BYTES", 3 * len(CONTENT))
    web.endless.add("/a.tar")
    with pytest.raises(FetchError, match=r"a\.tar has sent 6,144,000 bytes and does not end"):
        download([f"{web.url}/a.tar"], tmp_path / "here" / "a.tar")
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".a.tar.lock"]


def test_a_file_that_there_is_no_room_for_is_not_begun(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "SPARE_BYTES", 2 * shutil.disk_usage(tmp_path).total)
    with pytest.raises(FetchError, match=r"has 2,048,000 bytes, and there is room for 0"):
        download([f"{web.url}/a.tar"], tmp_path / "a.tar")
    assert (tmp_path / "a.tar.partial").stat().st_size == 0


def test_a_full_disk_is_reported(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar.partial").symlink_to("/dev/full")
    with pytest.raises(FetchError, match="No space left on device"):
        download([f"{web.url}/a.tar"], tmp_path / "a.tar", MD5)


def test_a_published_corpus_is_fetched_by_name_verified_and_used(corpus: KnownCorpus, web: Web) -> None:
    source = open_source("gtzan-mini", TWO)
    before = source.resolve()
    assert web.requests == []
    source.fetch()
    assert len(list(source.items())) == 4
    assert open_source("gtzan-mini", TWO).resolve() == before
    assert not (home.corpora_folder() / "few.tar.gz").exists()
    web.requests.clear()
    assert len(list(open_source("gtzan-mini", TWO).items())) == 4
    assert web.requests == []


@pytest.mark.parametrize("source", ["gtzan", "gtzan-mini", "s3://music/gtzan", "hf://datasets/owner/name"])
def test_what_is_no_path_stays_as_it_was_typed(source: str) -> None:
    assert settings("quickstart", source, None, None, None, ()).source == source


def test_mirrors_are_tried_first(
    corpus: KnownCorpus, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(known.MIRRORS_VARIABLE, f"{web.url}/nowhere {web.url}/mirror/")
    fetch_known(corpus, tmp_path / "few")
    assert [path for _, path, _ in web.requests] == ["/nowhere/few.tar.gz", "/mirror/few.tar.gz"]
    fetch_known(corpus, tmp_path / "again", mirrors=[f"{web.url}/mirror"])
    assert web.requests[-1][1] == "/mirror/few.tar.gz"


def test_where_no_address_has_the_archive_mirrors_are_suggested(
    corpus: KnownCorpus, web: Web, tmp_path: Path
) -> None:
    web.files.clear()
    with pytest.raises(FetchError, match=r"404.*--mirror or GENREFLOW_MIRRORS"):
        fetch_known(corpus, tmp_path / "few")


def test_gtzan_is_fetched_from_the_hub_and_the_token_goes_nowhere_else(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{web.url}/hub")
    monkeypatch.setenv("HF_TOKEN", "hush")
    monkeypatch.setenv("GENREFLOW_MIRRORS", f"{web.url}/mirror")
    addresses = KNOWN["gtzan"].sources()
    assert addresses[1] == f"{web.url}/hub/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz"
    only_here = KnownCorpus("gtzan", "genres.tar.gz", MD5, "marsyas/gtzan/resolve/main/x", (), dict)
    with pytest.raises(FetchError):
        fetch_known(only_here, tmp_path / "gtzan")
    assert asked(web, "Authorization") == [None, "Bearer hush"]


def test_an_archive_of_any_address_becomes_a_folder(web: Web, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("mine/jazz/a.wav", b"x")
    web.files["/mine.zip"] = packed.getvalue()
    folder = fetch_address(f"{web.url}/mine.zip?download=1", None)
    assert folder == home.corpora_folder() / "mine"
    assert (folder / "mine" / "jazz" / "a.wav").read_bytes() == b"x"
    with pytest.raises(CorpusError, match="there already"):
        fetch_address(f"{web.url}/mine.zip", None)
    web.files["/page.zip"] = b"<html>"
    with pytest.raises(CorpusError, match="neither a tar nor a zip"):
        fetch_address(f"{web.url}/page.zip", tmp_path / "page")


def test_the_command_line_fetches_and_verifies(
    corpus: KnownCorpus, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def genreflow(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["genreflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    assert genreflow("data", "fetch", "gtzan-mini") == 0
    said = capfd.readouterr()
    folder = home.corpora_folder() / "gtzan-mini"
    assert f"genreflow run --source {folder}" in said.out
    assert "(100 %)" in said.err
    assert genreflow("data", "verify", str(folder)) == 0
    assert "nothing is wrong" in capfd.readouterr().out
    (folder / "genres" / "jazz" / "jazz.00000.wav").unlink()
    assert genreflow("data", "verify", str(folder), "--json") == 1
    assert '"jazz.00000"' in capfd.readouterr().out
    for arguments, expected in {
        ("fetch", "gtzan-mini"): "there already",
        ("fetch", "gtzan-maxi"): "There is no corpus 'gtzan-maxi'",
        ("fetch", "gtzan", "--md5", "0"): "is for URLs",
        ("verify", "/nowhere"): "There is no folder",
        ("verify", str(folder), "--index", "fma"): "There is no index",
    }.items():
        assert genreflow("data", *arguments) == 1
        assert expected in capfd.readouterr().err
