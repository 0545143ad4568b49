"""Group the faces of an album by person, when nobody has been named.

Average linkage on a sparse graph of alike faces. Two groups are joined when the mean score over all
pairs between them reaches a threshold; the mean comes from the sums of their vectors, so it is
exact although only pairs above a floor are ever stored. That loses nothing: where the mean of some
scores reaches a value, one of the scores does. One lucky pair, which is all that DBSCAN and
connected components need to merge two people, moves a mean of many pairs very little.

The threshold is an operating point of the recogniser, chosen by the album itself (see `linkage`),
and falls as groups grow, for a mean over many comparisons strays less than a single one. Odd
pictures of a person are then told by the few that they resemble: what is left over joins the group
in which its best three scores are high.

What is known for certain always holds: faces to be kept apart (two faces of one picture are two
people), faces known to belong together, and the groups of an earlier run, which keep their numbers
when new faces join them.

Source of the order of merging: reciprocal nearest neighbours, as in Murtagh, "A survey of recent
advances in hierarchical clustering algorithms", 1983.

Read `thresholds` (how alike is alike enough in this album), `groups` (the merging), `album` (a
folder of groups that people correct), `agreement` (how good groups are, where the truth is known).
"""

from mien.clustering.agreement import Agreement, Rates, agreement
from mien.clustering.groups import MIN_QUALITY, NONE, Labels, Pairs, cluster, same_picture
from mien.clustering.thresholds import Linkage, linkage

__all__ = [
    "MIN_QUALITY", "NONE", "Agreement", "Labels", "Linkage", "Pairs", "Rates", "agreement",
    "cluster", "linkage", "same_picture",
]  # fmt: skip
