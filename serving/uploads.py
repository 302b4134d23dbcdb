"""Multipart forms: checked as they are read, their files stored under their own names."""

import json
import shutil
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Self

import bentoml
from anyio import to_thread
from pydantic import Field
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from genreflow.core.errors import RequestError
from serving.limits import limits
from serving.request_guard import refuse

FORM = "multipart/form-data"
MAX_FIELDS = 16
MAX_FIELD_BYTES = 1_024
NAME_CHARACTERS = 60
"""Four bytes each at most, and a file system takes 255."""
DEFAULT_NAME = "the upload"

AudioFile = Annotated[Path, Field(description="wav, au, flac, mp3, ogg, opus, m4a, webm or mp4, any rate")]
AudioFiles = Annotated[list[Path], Field(description="audio files, each as a field `files` of its own")]
HopSeconds = Annotated[
    float | None,
    Field(description="seconds from window to window; the model's own where left out", gt=0),
]


class Upload(bentoml.IODescriptor):
    """One audio file."""

    file: AudioFile

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Self:
        return cls.model_construct(**await _fields(request, one="file"))


class TimelineUpload(bentoml.IODescriptor):
    """One audio file, and the hop of its timeline."""

    file: AudioFile
    hop_seconds: HopSeconds = None

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Self:
        return cls.model_construct(**await _fields(request, one="file", number="hop_seconds"))


class BatchUpload(bentoml.IODescriptor):
    """Many audio files."""

    files: AudioFiles

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Self:
        return cls.model_construct(**await _fields(request, many="files"))


async def _fields(
    request: Request, one: str | None = None, many: str | None = None, number: str | None = None
) -> dict[str, Any]:
    """The fields of a form: paths of the stored files, and the number or None.

    BentoML's own reading answers a broken form, a missing file or an odd file name with status 500, and
    fetches what a file field holds as text from the network.
    """
    try:
        name = one or many or ""
        form = await _form(request, name)
        wanted = [name for name in (one, many, number) if name is not None]
        unknown = next((name for name in form if name not in wanted), None)
        if unknown is not None:
            raise RequestError(
                f"There is no field {_shown(unknown)!r} here; there is {' and '.join(map(repr, wanted))}."
            )
        uploads = [upload for upload in form.getlist(name) if isinstance(upload, UploadFile)]
        if not uploads:
            raise RequestError(f"There is no file: send one as the form's field {name!r}.")
        if one and len(uploads) > 1:
            raise RequestError(
                f"The field {one!r} was sent {len(uploads)} times; /classify_batch takes many files."
            )
        most = limits().files
        if len(uploads) > most:
            raise RequestError(
                f"{len(uploads)} files are too many for one request: send at most {most}.", 413
            )
        paths = await to_thread.run_sync(_store, uploads)
        fields: dict[str, Any] = {name: paths[0] if one else paths}
        if number:
            fields[number] = _number(form, number)
        return fields
    except RequestError as error:
        refuse(error)


class AudioForm(MultiPartParser):
    """Starlette's parser, to which a field of audio is a file also where it has no file name.

    Such a part (`curl -F 'file=<song.mp3'`, and clients that send bytes) is a text field by Starlette's rule.
    """

    audio_field = ""

    def on_headers_finished(self) -> None:
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        if options.get(b"name") == self.audio_field.encode() and b"filename" not in options:
            part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()


async def _form(request: Request, audio_field: str) -> FormData:
    kind = request.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if kind != FORM:
        raise RequestError(f"Audio is sent as {FORM}, not as {_shown(kind)}: curl -F file=@song.mp3", 415)
    async with aclosing(request.stream()) as stream:
        parser = AudioForm(
            request.headers,
            stream,
            max_files=limits().files + 1,
            max_fields=MAX_FIELDS,
            max_part_size=MAX_FIELD_BYTES,
        )
        parser.audio_field = audio_field
        try:
            return await parser.parse()
        except MultiPartException as error:
            raise RequestError(f"The form cannot be read: {error.message.rstrip('.')}.") from error


def _store(uploads: list[UploadFile]) -> list[Path]:
    """Each in a folder of its own, deleted with the request: errors can then name a file."""
    paths, folder = [], bentoml.Context().temp_dir
    for upload in uploads:
        path = Path(tempfile.mkdtemp(dir=folder)) / file_name(upload.filename)
        with path.open("wb") as file:
            upload.file.seek(0)
            shutil.copyfileobj(upload.file, file)
        paths.append(path)
    return paths


def file_name(given: str | None) -> str:
    """A name that any file system takes and any reader may see."""
    name = _shown((given or "").replace("\\", "/").rpartition("/")[2]).strip()
    return name if name.strip(".") else DEFAULT_NAME


def _shown(text: str) -> str:
    clean = "".join(letter if letter.isprintable() else "_" for letter in text)
    return clean.encode("utf-8", "replace").decode()[:NAME_CHARACTERS]


def _number(form: FormData, name: str) -> float | None:
    given = form.getlist(name)
    if len(given) > 1:
        raise RequestError(f"The field {name!r} was sent {len(given)} times.")
    if given and isinstance(given[0], UploadFile):
        raise RequestError(f"The field {name!r} is a number of seconds, not a file.")
    if not given or given[0] in ("", "null"):
        return None
    try:
        value = json.loads(str(given[0]))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError, RecursionError):
        raise RequestError(
            f"The field {name!r} is a number of seconds, not {_shown(str(given[0]))!r}."
        ) from None
