"""REST and the web page: a client of the library. Start with `create_app`, or `mien serve`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mien.errors import MissingExtra

if TYPE_CHECKING:
    from mien.server.app import create_app as create_app
    from mien.server.galleries import Galleries as Galleries
    from mien.server.settings import Settings as Settings

_HOME = {"create_app": "app", "Galleries": "galleries", "Settings": "settings"}
_EXTRA = ("fastapi", "starlette", "pydantic", "uvicorn", "python_multipart", "prometheus_client")

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import on first use: `mien serve keys` needs no web framework."""
    if name not in _HOME:
        raise AttributeError(f"module 'mien.server' has no attribute {name!r}")
    try:
        return getattr(import_module(f"mien.server.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in _EXTRA:
            raise MissingExtra("the server", "server") from error
        raise
