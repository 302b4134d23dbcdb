"""A bento that is told which model to answer with, as `genreflow serve` does: late, wrong, back again."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from candidates import write_packaged
from servers import free_port, served
from services import Champion, Service, until

from serving.champion import CONNECTED, FILE_VARIABLE, RequestedModel, write

pytestmark = pytest.mark.xdist_group("switching")


@dataclass(frozen=True)
class Told:
    """A service, and the file that says what it is to serve."""

    service: Service
    file: Path

    def want(self, tag: str) -> None:
        write(self.file, RequestedModel(tag=tag, reason=None, registry=CONNECTED))

    def answers(self, tag: str) -> bool:
        return bool(self.service.model()["lineage"]["model"] == tag)

    def notes(self) -> list[str]:
        return list(self.service.model()["notes"])

    def tagged(self, name: str, seed: int) -> str:
        """A model in BentoML's store."""
        champion, tag = self.service.champion, f"genreflow:{name}"
        write_packaged(champion.root / name, seed, {})
        champion.store(tag, champion.root / name)
        return tag


@pytest.fixture(scope="module")
def told(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    own = champion.copy(tmp_path_factory.mktemp("told"))
    file, port = own.root / "champion.json", free_port()
    (bento,) = (own.root / "bentoml" / "bentos" / "genreflow").glob("v*")
    argv = [sys.executable, "-m", "bentoml", "serve", f"genreflow:{bento.name}", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    told = Told(Service(own, address), file)
    told.want(own.model_tag)
    environment = own.environment | {FILE_VARIABLE: str(file)}
    with served(argv, own.root / "serve.log", environment, f"{address}/readyz"):
        yield told


def test_a_model_that_could_not_be_loaded_for_a_moment_is_tried_again(told: Told) -> None:
    tag = told.tagged("late", 3)
    folder = told.service.champion.stored(tag)
    shutil.move(folder, folder.with_name("aside"))
    told.want(tag)
    until(lambda: tag in " ".join(told.notes()), "the card never said so")
    assert "loading is retried" in told.notes()[0]
    assert str(folder) not in told.notes()[0]
    shutil.move(folder.with_name("aside"), folder)
    until(lambda: told.answers(tag), "it was never tried again")
    assert told.notes() == []


def test_a_wrong_model_is_refused_until_it_is_wanted_anew(told: Told) -> None:
    before, tag = told.service.model()["lineage"]["model"], told.tagged("wrong", 4)
    weights = told.service.champion.stored(tag) / "openvino" / "model.bin"
    right = weights.read_bytes()
    weights.write_bytes(bytes(len(right)))
    told.want(tag)
    until(lambda: tag in " ".join(told.notes()), "the card never said so")
    assert "cannot be served here" in told.notes()[0]
    assert "tried again" not in told.notes()[0]
    weights.write_bytes(right)
    told.want(before)
    until(lambda: not told.notes(), "the note stayed")
    told.want(tag)
    until(lambda: told.answers(tag), "it was never looked at again")


def test_a_model_that_answered_a_moment_ago_is_taken_back_and_not_loaded_again(told: Told) -> None:
    before, tag = told.service.model()["lineage"]["model"], told.tagged("fro", 5)
    told.want(tag)
    until(lambda: told.answers(tag), "it never answered")
    for one in (before, tag):
        shutil.rmtree(told.service.champion.stored(one))
    for one in (before, tag, before):
        told.want(one)
        until(lambda one=one: told.answers(one), "it was loaded again")  # type: ignore[misc]
