"""Installs dglrec; the versions that were tested together stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "dglrec" / "version.py").read_text("utf-8"), re.MULTILINE)
README = HERE / "README.md"

setup(
    name="dglrec",
    version=VERSION[1] if VERSION else "0",
    description="Graph-based and sequential recommenders on DGL: one split, one evaluator",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",  # DGL's wheels on PyPI: 1.1.3 up to Python 3.11, 2.1.0 up to 3.12
    packages=find_packages(include=["dglrec", "dglrec.*"]),
    package_data={"dglrec": ["py.typed", "results/*.json", "results/runs/*"]},
    install_requires=[
        "dgl>=1.1.3,<3",
        "torch>=2.4",  # the first with fused Adam on the CPU
        "numpy>=1.24",
        "scipy>=1.10",
        "networkx>=2.8",
        "scikit-learn>=1.3",
        "polars>=1.0",
        "safetensors>=0.4",
        "tqdm>=4.60",
        "filelock>=3.12",
        "matplotlib>=3.6",
        "packaging>=21",  # not ours: DGL imports it and does not ask for it
        "pandas>=1.5",  # not ours: DGL 2 imports it and does not ask for it
    ],
    extras_require={
        "fast": ["numba>=0.61"],
        # sentence-transformers 5.2 is the first that works with transformers 5
        "lm": ["transformers>=5", "tokenizers>=0.20", "sentence-transformers>=5.2"],
        "docs": ["sphinx>=7", "myst-parser>=3"],
        "test": [
            *("pytest>=8", "hypothesis>=6.80", "ranx>=0.3.20", "ruff>=0.9", "mypy>=1.14"),
            *("numba>=0.61", "transformers>=5", "tokenizers>=0.20", "sentence-transformers>=6.2"),
        ],
    },
    entry_points={"console_scripts": ["dglrec = dglrec.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
