"""A model repository of a Hugging Face hub: everything in one commit, and back through the hub's cache."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from genreflow.core import hub
from genreflow.core.digests import file_digest
from genreflow.core.documents import PackagedDocument, PublishedDocument
from genreflow.core.errors import GenreflowError, NewerDocumentError, PublishError
from genreflow.publishing.layout import Published

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

SPECIFICATION = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?")
AGAIN = "run again later"
NO_XET = ", or, where the hub has no Xet storage, set HF_HUB_DISABLE_XET=1"


def check(address: str, public: bool) -> None:
    """Nothing where a model can be published there, as far as can be checked beforehand.

    Raises:
        PublishError: the address is none, there is no token, or the repository is public though that was not
            asked for.
    """
    name, revision = _parts(address)
    if revision is not None:
        raise PublishError(
            f"{address} names a revision: a model is published on the main branch. Leave it out."
        )
    with hub.translate_errors(address, "write", PublishError, AGAIN):
        from huggingface_hub import HfApi, constants, get_token

        if get_token() is None:
            raise PublishError(
                f"{address} needs a token: set HF_TOKEN to one that may write there "
                f"({constants.ENDPOINT}/settings/tokens)."
            )
        info = _info(HfApi(), name)
        if info is not None and not info.private and not public:
            raise PublishError(f"{address} exists and is public: add --public to publish there.")


def upload(address: str, folder: Path, record: PublishedDocument, public: bool) -> Published:
    """Commit a laid-out folder to `hf://OWNER/NAME`, created where missing.

    Raises:
        PublishError: the hub refuses.
    """
    name, _ = _parts(address)
    with hub.translate_errors(address, "write", PublishError, AGAIN + NO_XET):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

        api = HfApi()
        if _info(api, name) is None:
            api.create_repo(name, private=not public)
        info = api.model_info(name)
        there = {sibling.rfilename for sibling in info.siblings or ()}
        before = _before(name, str(info.sha), there)
        removed = tuple(sorted((before.keys() & there) - record.files.keys()))
        names = [*record.files, PublishedDocument.file_name]
        commit = api.create_commit(
            name,
            [
                *(CommitOperationAdd(one, folder / one) for one in names),
                *(CommitOperationDelete(one) for one in removed),
            ],
            commit_message=f"genreflow: version {record.version}, {record.digest[:12]}",
            parent_commit=str(info.sha) if info.sha else None,
        )
        changed = commit.oid != info.sha
        uploaded = [one for one in record.files if one not in there or before.get(one) != record.files[one]]
        notes = []
        if public and info.private:
            notes.append(
                f"It stays private, as it was: make it public at {constants.ENDPOINT}/{name}/settings."
            )
        return Published(
            version=record.version,
            url=f"{constants.ENDPOINT}/{name}",
            digest=file_digest(folder / PublishedDocument.file_name),
            visibility="private" if info.private else "public",
            uploaded=tuple(uploaded) if changed else (),
            removed=removed,
            notes=tuple(notes),
        )


def download(address: str) -> Path:
    """The packaged model's files of `hf://OWNER/NAME[@REVISION]`, in the hub's cache.

    Raises:
        PublishError: there is no such model, or the hub cannot be reached.
    """
    name, revision = _parts(address)
    with hub.translate_errors(address, "read", PublishError, "run again later; what was fetched is kept"):
        from huggingface_hub import errors, hf_hub_download, snapshot_download

        try:
            found = Path(hf_hub_download(name, PackagedDocument.file_name, revision=revision))
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                raise
            raise PublishError(
                f"{address} has no {PackagedDocument.file_name}: it was not published by genreflow."
            ) from error
        files = PackagedDocument.read(found.parent).files
        commit = found.parent.name
        return Path(
            snapshot_download(
                name,
                revision=commit,
                allow_patterns=[
                    PackagedDocument.file_name,
                    *(re.sub(r"([*?[])", r"[\1]", one) for one in files),
                ],
            )
        )


def _parts(address: str) -> tuple[str, str | None]:
    match = SPECIFICATION.fullmatch(address.rstrip("/"))
    if match is None or match["repository"].startswith("datasets/"):
        raise PublishError(f"{address} names no model repository: hf://OWNER/NAME does.")
    return match["repository"], match["revision"]


def _info(api: "HfApi", name: str) -> "ModelInfo | None":
    from huggingface_hub import errors

    try:
        return api.model_info(name)
    except errors.GatedRepoError:
        raise
    except errors.RepositoryNotFoundError:
        return None


def _before(name: str, commit: str, there: set[str]) -> dict[str, str]:
    """sha256 by path of what publishing wrote there before; nothing where it never did."""
    from huggingface_hub import hf_hub_download

    if PublishedDocument.file_name not in there:
        return {}
    try:
        return PublishedDocument.read(
            Path(hf_hub_download(name, PublishedDocument.file_name, revision=commit)).parent
        ).files
    except NewerDocumentError as error:
        raise PublishError(f"hf://{name} cannot be read: {error}") from error
    except GenreflowError:
        return {}  # not ours, or by another version of genreflow: nothing is removed
