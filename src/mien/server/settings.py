"""What whoever starts the server decides."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and files of one server.

    `keys` is the file of bearer keys (see `mien.server.keys`). Without it everybody may do
    everything, so only requests to this machine by its own name are answered. `audit` is the file
    that the audit log is appended to, None for no log. `heads` is a folder of fitted heads, one a
    file NAME.head, None for none. `reviews` is how many borderline identifications of each gallery
    may wait in memory to be confirmed or rejected, if a request asks for it; 0 for none.

    `body_bytes`, `pictures` and `pixels` limit one request: its size, how many pictures it brings,
    and width x height of each. `upload_seconds` is how long its body may take to arrive. `queue` is
    how many requests, and how many pictures, may be waiting or at work in all; `concurrency` is how
    many requests one key may have there, and `rate` how many a second it may send on average
    (`burst` at once). `cameras` is how many live cameras may be connected, `frame_bytes` the size
    of one frame of theirs.
    """

    keys: Path | None = None
    audit: Path | None = None
    heads: Path | None = None
    reviews: int = 200
    body_bytes: int = 32_000_000
    pictures: int = 16
    pixels: int = 64_000_000
    upload_seconds: float = 30.0
    queue: int = 64
    concurrency: int = 16
    rate: float = 100.0
    burst: int = 200
    cameras: int = 8
    frame_bytes: int = 4_000_000
