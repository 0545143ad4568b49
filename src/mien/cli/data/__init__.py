"""mien data"""

import click

from mien.cli.data.check import check
from mien.cli.data.crops import crop_, pack_
from mien.cli.data.lists import lfw_, pairs_, split_, triplets_


@click.group()
def command() -> None:
    """Prepare pictures for training and evaluation: crop, check, split, pair, pack.

    \b
    mien data crop photos/ -o crops/                 # photos/NAME/*.jpg to aligned faces
    mien data check crops/ -o findings/              # copies, wrong names, imbalance
    mien data split crops/ -o lists/ --only findings/keep.csv
    mien data pack crops/ -o packed/ --only lists/train.csv

    Lists name pictures by their path below the folder of photos, so that they hold for the photos,
    the crops and the packed set alike. What is drawn is the same for the same --seed.
    """


for part in (crop_, check, split_, pairs_, triplets_, pack_, lfw_):
    command.add_command(part)
