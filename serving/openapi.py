"""The OpenAPI description: BentoML's own, with each error as it is really answered."""

from typing import Any

from serving.limits import limits
from serving.request_guard import keyless
from serving.schemas import (
    Answer,
    BatchAnswer,
    ErrorResponse,
    Lineage,
    ModelCard,
    Segment,
    Timeline,
)
from serving.uploads import FORM

ANSWERS = (Answer, BatchAnswer, Timeline, Lineage, ModelCard, ErrorResponse, Segment)
SCHEMA = "#/components/schemas/ErrorResponse"
COMMON = {
    "400": "The request or its file cannot be used; the sentence says why",
    "401": "The service has a key and this one is not it",
    "408": "The upload came too slowly",
    "413": "The upload is too large, the song too long, or there are too many files",
    "415": "Not a multipart form",
    "503": "Busy or not ready; `Retry-After` says when to try again",
}
OF_MODEL = ("401", "503")
VERSION = "3.1.0"
"""What pydantic's schemas are of; BentoML writes an older one above them."""
KEYS = {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}}
"""How a key is sent; a browser sends it as the password of any user."""


def specification(service: Any) -> dict[str, Any]:
    """The description of a BentoML service, as JSON values."""
    described: dict[str, Any] = service.openapi_spec.asdict() | {"openapi": VERSION}
    described["components"]["securitySchemes"] = KEYS
    for answer in ANSWERS:
        schema = answer.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        described["components"]["schemas"][answer.__name__] = schema
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if method == "post":
                _document(operation, tuple(COMMON))
                _close(operation["requestBody"]["content"][FORM]["schema"])
            elif path == "/model":
                _document(operation, OF_MODEL)
            if limits().api_key is not None and not keyless(path):
                operation["security"] = [{name: []} for name in KEYS]
    return described


def _document(operation: dict[str, Any], statuses: tuple[str, ...]) -> None:
    kept = {status: response for status, response in operation["responses"].items() if str(status) == "200"}
    content = {"application/json": {"schema": {"$ref": SCHEMA}}}
    refused: dict[str, Any] = {
        status: {"description": COMMON[status], "content": content} for status in statuses
    }
    refused["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    operation["responses"] = kept | refused


def _close(form: dict[str, Any]) -> None:
    """A form has these fields and no others; null is as good as left out."""
    form["additionalProperties"] = False
    for name, field in form["properties"].items():
        if name not in form["required"]:
            field.pop("default", None)
            field["type"] = ["number", "null"]
