"""Importing this imports what benchmarks need, for the process that they are forked from."""

import gc

import transformers.trainer  # noqa: F401

from trainer.export import export  # noqa: F401
from trainer.inference import generation  # noqa: F401
from trainer.launch import gang

gang.preload()
gc.collect()
gc.freeze()  # as worker/fork_server.py does
