"""Language models as recommenders: prompts, names of items, embeddings and a T5.

The libraries of the extra `lm` are imported where they are used, and nowhere else.
"""
