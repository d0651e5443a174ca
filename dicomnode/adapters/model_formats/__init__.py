"""What people have models in, one file a format: how it is recognised, and what card follows from it.

A card that follows is a document as `model.yaml` has it. What a `model.yaml` in the package says is laid over it.
"""
