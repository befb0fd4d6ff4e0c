"""Graph, sequential and language-model recommenders on DGL and PyTorch."""

__version__ = "0.1.0"
