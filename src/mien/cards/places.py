"""Where cards and files are kept on this machine."""

import os
import re
from pathlib import Path

import platformdirs

from mien.cards.objects import UNKNOWN


def home() -> Path:
    """Where fetched models and cards are kept: `MIEN_HOME`, else the user's data folder."""
    return Path(os.environ.get("MIEN_HOME") or platformdirs.user_data_path("mien"))


def pin_path(name: str) -> Path:
    """Where the hash of a file's first download is kept, as `sha256sum` writes it."""
    return home() / "models" / f"{name}.sha256"


def pinned(name: str) -> str:
    """That hash; "unknown" where there was no download."""
    try:
        digest = pin_path(name).read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError):
        return UNKNOWN
    return digest if re.fullmatch(r"[0-9a-f]{64}", digest) else UNKNOWN
