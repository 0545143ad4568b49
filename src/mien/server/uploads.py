"""Bodies of requests to pictures: multipart/form-data or JSON with base64, within hard limits.

Everything stays in memory: nothing is spooled to a temporary file, where pictures of people would
be left behind by a crash.
"""

import asyncio
import binascii
import hashlib
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from mien.errors import ImageTooLarge, InputError, UnreadableImage
from mien.images import Limits, read_image
from mien.server.messages import Message, Pictures
from mien.server.problems import BodyTooLarge, MalformedRequest, UnsupportedMedia, UploadTimeout
from mien.server.settings import Settings
from mien.types import Image

_FIELD = "image"

Body = TypeVar("Body", bound=Message)


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of one picture as it was uploaded, and its name for messages."""

    name: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Tells whether two uploads are the same file."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def read(self, pixels: int) -> Image:
        """Decode. Raises `UnreadableImage` and `ImageTooLarge`, which name the picture."""
        try:
            image = read_image(self.data, Limits(len(self.data), pixels))
        except UnreadableImage as error:
            raise UnreadableImage(self.name, error.reason) from error
        except ImageTooLarge as error:
            raise ImageTooLarge(self.name, error.size, error.limit, error.unit) from error
        return Image(image.pixels, self.name)


async def read_body(request: Request, settings: Settings) -> bytes:
    """The body of a request. Raises `BodyTooLarge` as soon as it is, and `UploadTimeout`."""
    limit = settings.body_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise BodyTooLarge(f"the request has {int(announced):,} bytes, over {limit:,}")
    body = bytearray()
    try:
        async with asyncio.timeout(settings.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge(f"the request has more than {limit:,} bytes")
    except TimeoutError:
        raise UploadTimeout(
            f"the body took more than {settings.upload_seconds:g} seconds"
        ) from None
    except ClientDisconnect:
        raise MalformedRequest("the connection ended before the body did") from None
    return bytes(body)


def parse(content_type: str, body: bytes, most: int) -> list[Picture]:
    """The pictures in a body, at least one and at most `most`.

    Raises `UnsupportedMedia`, `MalformedRequest` and `BodyTooLarge`.
    """
    kind, options = parse_options_header(content_type)
    match kind:
        case b"multipart/form-data":
            if not options.get(b"boundary"):
                raise MalformedRequest("multipart/form-data needs a boundary")
            pictures = _Form(most).parse(options[b"boundary"], body)
        case b"application/json":
            pictures = _of_json(body, most)
        case _:
            raise UnsupportedMedia(
                f"send pictures as multipart/form-data with parts named {_FIELD!r}, or as "
                f'application/json {{"{_FIELD}": BASE64 or [BASE64, ...]}}'
            )
    if not pictures:
        raise MalformedRequest(f"there is no picture in the request: no part named {_FIELD!r}")
    return pictures


def _of_json(body: bytes, most: int) -> list[Picture]:
    try:
        given = Pictures.model_validate_json(body).image
    except ValidationError as error:
        raise MalformedRequest(_explain(error)) from None
    texts = [given] if isinstance(given, str) else given
    if len(texts) > most:
        raise BodyTooLarge(f"the request has {len(texts)} pictures, over {most}")
    pictures = []
    for number, text in enumerate(texts, 1):
        try:
            pictures.append(Picture(f"image {number}", b64decode(text, validate=True)))
        except (binascii.Error, ValueError):
            raise MalformedRequest(f"image {number} is not base64") from None
    return pictures


def parse_json(shape: type[Body], body: bytes) -> Body:
    """What a JSON body says. Raises `InputError`."""
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise InputError(_explain(error)) from None


class _Form:
    """Collects the parts named `image` of one multipart body."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._data: bytearray | None = None
        self._file = ""
        self._ended = False
        self.pictures: list[Picture] = []

    def parse(self, boundary: bytes, body: bytes) -> list[Picture]:
        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header,
                    "on_headers_finished": self._opened,
                    "on_part_data": self._more,
                    "on_part_end": self._close,
                    "on_end": self._finish,
                },
            )
            parser.write(body)
            parser.finalize()
        except FormParserError as error:
            raise MalformedRequest(f"the multipart body is damaged: {error}") from None
        if not self._ended:
            raise MalformedRequest("the multipart body ends before its last boundary")
        return self.pictures

    def _begin(self) -> None:
        self._headers.clear()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _opened(self) -> None:
        disposition, options = parse_options_header(
            self._headers.get(b"content-disposition", b"").decode("latin-1")
        )
        self._data = None
        if disposition != b"form-data" or options.get(b"name") != _FIELD.encode():
            raise MalformedRequest(f"a part of the form is not named {_FIELD!r}")
        if len(self.pictures) == self._most:
            raise BodyTooLarge(f"the request has more than {self._most} pictures")
        self._data = bytearray()
        self._file = options.get(b"filename", b"").decode(errors="replace")[:200]

    def _more(self, data: bytes, start: int, end: int) -> None:
        if self._data is not None:
            self._data += data[start:end]

    def _close(self) -> None:
        if self._data is not None:
            name = self._file or f"image {len(self.pictures) + 1}"
            self.pictures.append(Picture(name, bytes(self._data)))

    def _finish(self) -> None:
        self._ended = True


def _explain(error: ValidationError) -> str:
    """What is wrong with a JSON body, without repeating what it contained."""
    return "; ".join(
        f"{'.'.join(map(str, entry['loc'])) or 'the body'}: {entry['msg']}"
        for entry in error.errors(include_url=False, include_context=False, include_input=False)[:5]
    )
