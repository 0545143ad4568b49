"""mien verify"""

import sys

import click

from mien.cli import options
from mien.cli.batch import STDIN
from mien.cli.output import emit, one_in, rarity
from mien.recognition import load


@click.command()
@click.argument("a", type=click.Path(allow_dash=True))
@click.argument("b", type=click.Path(allow_dash=True))
@click.option("--fmr", default=1e-3, show_default=True, metavar="RATE",
              help="False match rate: the share of pairs of strangers that may pass.")  # fmt: skip
@options.choose
@options.min_face
@options.model
@options.as_json
def command(
    a: str, b: str, fmr: float, choose: str, min_face: float | None, model: str, as_json: bool
) -> int:
    """Say whether two pictures show the same person. Exit status 0: yes, 1: no.

    \b
    mien verify passport.jpg door.jpg
    mien verify a.jpg b.jpg --fmr 1e-4 && echo same

    The lower the false match rate, the more pairs of the same person are missed (FNMR);
    'mien models info embedded' shows both as measured.
    """
    recognizer = load(model, min_face=min_face)
    first, second = (sys.stdin.buffer.read() if path == STDIN else path for path in (a, b))
    answer = recognizer.verify(first, second, fmr=fmr, choose=options.CHOICES[choose])
    point = answer.operating_point
    if as_json:
        emit({
            "images": [a, b], "match": answer.match, "score": round(answer.score, 5),
            "threshold": round(point.threshold, 5), "fmr": point.fmr, "fnmr": round(point.fnmr, 5),
            "protocol": point.protocol, "contract": point.contract,
        })  # fmt: skip
    else:
        verdict = click.style("same person" if answer.match else "different people", bold=True)
        chance = rarity(recognizer.bundle.operating_points, answer.score)
        click.echo(f"{verdict}: score {answer.score:.3f}, threshold {point.threshold:.3f}")
        click.echo(f"  Of pairs of strangers, {chance} score this high; "
                   f"the threshold lets {one_in(point.fmr)} pass (FMR).")  # fmt: skip
        click.echo(f"  Of pairs of the same person, {point.fnmr:.1%} fall below the threshold "
                   f"(FNMR; measured on {point.protocol.split(',')[0]}).")  # fmt: skip
    return 0 if answer.match else 1
