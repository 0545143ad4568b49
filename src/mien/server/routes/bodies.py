"""What requests bring: pictures, or JSON. Read here and not by FastAPI, which has no limits."""

from typing import Any

from fastapi import Request

from mien.server import messages as m
from mien.server.service import Service
from mien.server.uploads import Body, Picture, parse, parse_json, read_body

PICTURES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Pictures: parts named `image` of a form, or base64 in JSON.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                },
                "encoding": {"image": {"contentType": "image/*"}},
            },
            "application/json": {"schema": m.Pictures.model_json_schema()},
        },
    }
}


def json_body(shape: type[m.Message]) -> dict[str, Any]:
    """How the description of a route says that it takes this JSON."""
    content = {"application/json": {"schema": shape.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


async def pictures_of(request: Request, service: Service) -> list[Picture]:
    """The pictures of a request, within its limits."""
    settings = service.settings
    body = await read_body(request, settings)
    kind = request.headers.get("content-type", "")
    return await service.parsed(body, lambda body: parse(kind, body, settings.pictures))


async def json_of(request: Request, service: Service, shape: type[Body]) -> Body:
    """The JSON of a request, within its limits. Raises `InputError`."""
    body = await read_body(request, service.settings)
    return await service.parsed(body, lambda body: parse_json(shape, body))
