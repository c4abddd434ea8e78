"""Importing this imports what benchmarks need, for the process that they are forked from."""

import transformers.trainer  # noqa: F401

from trainer.export import export  # noqa: F401
from trainer.inference import generation  # noqa: F401
from trainer.launch import gang

gang.preload()
