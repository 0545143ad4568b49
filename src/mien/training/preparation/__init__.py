"""Pictures of people to sets that a network can learn from: crop, check, split, pair, pack.

Each step reads a folder and writes tables or a folder; none needs PyTorch. `sets` says what is in
them, `crop` is the step that everything else starts from.
"""
