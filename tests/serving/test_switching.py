"""A bento that follows a champion file, as under `genreflow serve`: late, wrong, back again."""

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


@dataclass(frozen=True)
class FollowedService:
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
def followed(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FollowedService]:
    own = champion.copy(tmp_path_factory.mktemp("followed"))
    file, port = own.root / "champion.json", free_port()
    (bento,) = (own.root / "bentoml" / "bentos" / "genreflow").glob("v*")
    argv = [sys.executable, "-m", "bentoml", "serve", f"genreflow:{bento.name}", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    followed = FollowedService(Service(own, address), file)
    followed.want(own.model_tag)
    environment = own.environment | {FILE_VARIABLE: str(file)}
    with served(argv, own.root / "serve.log", environment, f"{address}/readyz"):
        yield followed


def test_a_model_that_could_not_be_loaded_for_a_moment_is_tried_again(followed: FollowedService) -> None:
    tag = followed.tagged("late", 3)
    folder = followed.service.champion.stored(tag)
    shutil.move(folder, folder.with_name("aside"))
    followed.want(tag)
    until(lambda: tag in " ".join(followed.notes()), "the card never said so")
    assert "loading is retried" in followed.notes()[0]
    assert str(folder) not in followed.notes()[0]
    shutil.move(folder.with_name("aside"), folder)
    until(lambda: followed.answers(tag), "it was never tried again")
    assert followed.notes() == []


def test_a_wrong_model_is_refused_until_it_is_requested_again(followed: FollowedService) -> None:
    before, tag = followed.service.model()["lineage"]["model"], followed.tagged("wrong", 4)
    weights = followed.service.champion.stored(tag) / "openvino" / "model.bin"
    right = weights.read_bytes()
    weights.write_bytes(bytes(len(right)))
    followed.want(tag)
    until(lambda: tag in " ".join(followed.notes()), "the card never said so")
    assert "cannot be served here" in followed.notes()[0]
    assert "tried again" not in followed.notes()[0]
    weights.write_bytes(right)
    followed.want(before)
    until(lambda: not followed.notes(), "the note stayed")
    followed.want(tag)
    until(lambda: followed.answers(tag), "it was never looked at again")


def test_a_recently_served_model_is_reused_and_not_loaded_again(followed: FollowedService) -> None:
    before, tag = followed.service.model()["lineage"]["model"], followed.tagged("fro", 5)
    followed.want(tag)
    until(lambda: followed.answers(tag), "it never answered")
    for one in (before, tag):
        shutil.rmtree(followed.service.champion.stored(one))
    for one in (before, tag, before):
        followed.want(one)
        until(lambda one=one: followed.answers(one), "it was loaded again")  # type: ignore[misc]
