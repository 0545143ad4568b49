"""mien embed"""

import os
from pathlib import Path

import click
import numpy as np

from mien.cli import options
from mien.cli.batch import Batch
from mien.cli.output import counted, emit
from mien.errors import InputError, MissingExtra
from mien.recognition import load
from mien.types import RecognizedFace


@click.command()
@options.pictures
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
              metavar="FILE", help="Where the vectors go: a .npz or .parquet file.")  # fmt: skip
@options.min_face
@options.model
@options.threads
@options.as_json
def command(
    paths: tuple[str, ...],
    output: Path,
    min_face: float | None,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Turn every face into a unit vector, and save them with their boxes.

    The file holds one row a face: image, box (left, top, right, bottom), vector, contract. Vectors
    of different contracts must not be compared.

    \b
    mien embed album/ -o album.npz
    python -c "import numpy; print(numpy.load('album.npz')['vector'].shape)"
    """
    write = _WRITERS.get(output.suffix.lower())
    if write is None:
        raise InputError(f"cannot write {output}: the name must end in {' or '.join(_WRITERS)}")
    recognizer = load(model, threads=threads, min_face=min_face)
    batch = Batch(paths)
    rows: list[tuple[str, RecognizedFace]] = []
    for name, faces in batch.run(recognizer.recognize, recognizer.threads):
        rows += [(name, face) for face in faces]
        if as_json:
            emit({"image": name, "faces": len(faces)})
        else:
            click.echo(f"{name}  {counted(len(faces), 'face')}")
    partial = output.with_name(output.name + ".partial")
    try:
        write(partial, rows, recognizer.contract)
        os.replace(partial, output)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"{counted(len(rows), 'vector')} in {output}", err=True)
    batch.finish()


def _columns(
    rows: list[tuple[str, RecognizedFace]], contract: str
) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    boxes = [(f.face.box.left, f.face.box.top, f.face.box.right, f.face.box.bottom)
             for _, f in rows]  # fmt: skip
    vectors = [f.embedding.vector for _, f in rows]
    return (
        [name for name, _ in rows],
        np.array(boxes, np.float32).reshape(-1, 4),
        np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
        [contract] * len(rows),
    )


def _npz(path: Path, rows: list[tuple[str, RecognizedFace]], contract: str) -> None:
    names, boxes, vectors, contracts = _columns(rows, contract)
    with path.open("wb") as file:
        np.savez(
            file,
            image=np.array(names, np.str_),
            box=boxes,
            vector=vectors,
            contract=np.array(contracts, np.str_),
        )


def _parquet(path: Path, rows: list[tuple[str, RecognizedFace]], contract: str) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("writing .parquet files", "parquet") from error
    names, boxes, vectors, contracts = _columns(rows, contract)
    floats = pyarrow.list_(pyarrow.float32())
    table = pyarrow.table({
        "image": names,
        "box": pyarrow.array(boxes.tolist(), floats),
        "vector": pyarrow.array(vectors.tolist(), floats),
        "contract": contracts,
    })  # fmt: skip
    pyarrow.parquet.write_table(table, path)


_WRITERS = {".npz": _npz, ".parquet": _parquet}
