"""From scores to error rates: curves, intervals, protocols, reports.

Read in this order: `curves` (scores to rates, pure), `intervals` (how sure a rate is),
`protocols` (which pictures to compare), `vectors` (pictures to embeddings, cached),
`verification`, `identification`, `detection` and `classification` (a protocol run to its
figures), `report` (figures to pages).
"""
