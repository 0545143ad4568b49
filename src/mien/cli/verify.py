"""mien verify"""

import click

from mien import decision
from mien.cli import options
from mien.cli.output import emit, one_in
from mien.recognition import load


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--fmr", default=1e-3, show_default=True, metavar="RATE",
              help="Share of pairs of strangers that may be taken for one person.")  # fmt: skip
@options.choose
@options.model
@options.as_json
def command(a: str, b: str, fmr: float, choose: str, model: str, as_json: bool) -> int:
    """Say whether two pictures show the same person. Exit status 0: yes, 1: no.

    \b
    mien verify passport.jpg door.jpg
    mien verify a.jpg b.jpg --fmr 1e-4 && echo same
    """
    recognizer = load(model)
    answer = recognizer.verify(a, b, fmr=fmr, choose=options.CHOICES[choose])
    point = answer.operating_point
    rarity = decision.impostor_rate(recognizer.bundle.operating_points, answer.score)
    if as_json:
        emit({
            "match": answer.match, "score": round(answer.score, 5),
            "threshold": round(point.threshold, 5), "fmr": point.fmr, "fnmr": round(point.fnmr, 5),
            "protocol": point.protocol, "contract": point.contract,
        })  # fmt: skip
    else:
        verdict = click.style("same person" if answer.match else "different people", bold=True)
        click.echo(f"{verdict}: score {answer.score:.3f}, threshold {point.threshold:.3f}")
        click.echo(
            f"  Of pairs of strangers, {one_in(rarity)} score this high; the threshold lets "
            f"{one_in(point.fmr)} pass."
        )
        click.echo(
            f"  Of pairs of the same person, {point.fnmr:.1%} fall below it "
            f"({point.protocol.split(':')[0]})."
        )
    return 0 if answer.match else 1
