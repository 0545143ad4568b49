"""Divide pictures into parts, by person or by picture, the same way every time.

What goes where is decided by digests of names and a seed, not by a generator: the same division
on every machine and version, whatever order the pictures come in.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from mien.errors import InputError
from mien.training.preparation.sets import Listed

By = Literal["person", "picture"]
Album = dict[str, list[Listed]]

T = TypeVar("T")


def select(
    pictures: Sequence[Listed],
    *,
    min_pictures: int = 1,
    max_pictures: int | None = None,
    balance: bool = False,
    seed: int = 0,
) -> Album:
    """The pictures of each person with at least `min_pictures`, of nobody more than `max_pictures`.

    With `balance` everyone who is left has as many as the one with the fewest. Which pictures of
    a person stay is drawn with `seed`. Raises `InputError` when nobody is left.
    """
    albums = by_subject(pictures)
    kept = {name: found for name, found in albums.items() if len(found) >= min_pictures}
    if not kept:
        most = max((len(found) for found in albums.values()), default=0)
        raise InputError(f"nobody has {min_pictures} pictures; the most that anybody has is {most}")
    limit = max_pictures or max(len(found) for found in kept.values())
    if balance:
        limit = min(limit, *(len(found) for found in kept.values()))
    return {name: _capped(found, limit, seed) for name, found in kept.items()}


def split(
    albums: Album, parts: Mapping[str, float], *, by: By = "person", seed: int = 0
) -> dict[str, list[Listed]]:
    """The pictures of each part, in the order of `albums`; `parts` names their shares.

    By person, nobody is in two parts: for networks that have to know strangers apart. By picture,
    everyone who has enough pictures is in every part, in those shares: for classifiers of known
    people. Raises `InputError` for shares that make no sense and when a part would be empty.
    """
    if len(parts) < 2 or not all(share > 0 for share in parts.values()):
        raise InputError("a split has at least two parts, each with a share above zero")
    found: dict[str, list[Listed]] = {name: [] for name in parts}
    if by == "person":
        people = _divided(sorted(albums, key=lambda name: _rank(seed, name)), parts)
        home = {person: part for part, group in people.items() for person in group}
        for person, album in albums.items():
            found[home[person]] += album
    else:
        for album in albums.values():
            drawn = sorted(album, key=lambda picture: _rank(seed, picture.source))
            home = {p.source: part for part, group in _divided(drawn, parts).items() for p in group}
            for picture in album:
                found[home[picture.source]].append(picture)
    empty = next((name for name, group in found.items() if not group), None)
    if empty is not None:
        raise InputError(f"there are too few {'people' if by == 'person' else 'pictures a person'} "
                         f"for {len(parts)} parts: {empty} would be empty")  # fmt: skip
    return found


def by_subject(pictures: Iterable[Listed]) -> Album:
    """The pictures of each person. Raises `InputError` for a set without people."""
    albums: Album = {}
    for picture in pictures:
        albums.setdefault(picture.subject, []).append(picture)
    if set(albums) <= {""}:
        raise InputError("nobody has a name here: give one sub-folder a person")
    return albums


def _capped(album: list[Listed], limit: int, seed: int) -> list[Listed]:
    drawn = sorted(album, key=lambda picture: _rank(seed, picture.source))[:limit]
    return sorted(drawn, key=lambda picture: picture.source)


def _divided(items: Sequence[T], parts: Mapping[str, float]) -> dict[str, Sequence[T]]:
    """Items in the shares of parts, rounded so that all are given out (largest remainders first).

    Where there are as many items as parts or more, no part goes without.
    """
    total = sum(parts.values())
    exact = {name: len(items) * share / total for name, share in parts.items()}
    counts = {name: int(number) for name, number in exact.items()}
    for name in sorted(parts, key=lambda name: counts[name] - exact[name]):
        counts[name] += sum(counts.values()) < len(items)
    for name in parts:
        if not counts[name] and len(items) >= len(parts):
            counts[max(counts, key=counts.__getitem__)] -= 1
            counts[name] = 1
    found, start = {}, 0
    for name, count in counts.items():
        found[name] = items[start : start + count]
        start += count
    return found


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
