"""Fit embedding networks: recipes, data, objectives, one explicit loop, checkpoints, draft cards.

Read `loop.py` first. A recipe (TOML) is parsed into the frozen values of `config`.
"""
