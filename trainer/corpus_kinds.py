"""The kinds of corpora: what one document or record of each holds. Standard library only, for the sandboxed parser."""

# A document of the kind text is running text. Records of the other kinds: see worker/sandbox/corpus/record_schema.py.
CORPUS_KINDS = ("text", "chat", "completion", "classification", "preference", "seq2seq", "multiple_choice", "unpaired")
# The fields of each kind that columns can be mapped to: those a record must have, and those it may have.
KIND_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text": (("text",), ()),
    "chat": (("messages",), ("system", "tools")),
    "completion": (("prompt", "completion"), ()),
    "classification": (("text", "label"), ()),
    "preference": (("chosen", "rejected"), ("prompt", "system", "tools")),
    "seq2seq": (("source", "target"), ()),
    "multiple_choice": (("question", "choices", "answer"), ()),
    "unpaired": (("prompt", "completion", "label"), ("system",)),
}
# Those that a checkpoint can be evaluated on: trainer/inference/lm_eval_harness.py has a task for each.
EVALUATION_KINDS = ("text", "multiple_choice", "classification", "completion")
# Kinds of corpora that each objective can be trained on.
CORPUS_KINDS_BY_OBJECTIVE = {
    "causal": ("text", "classification"),
    "masked": ("text", "classification"),
    "span_corruption": ("text", "classification"),
    "seq2seq": ("seq2seq",),
    "chat": ("chat",),
    "completion": ("completion",),
    "classification": ("classification",),
    "dpo": ("preference",),
}
TRAINED_KINDS = frozenset(kind for kinds in CORPUS_KINDS_BY_OBJECTIVE.values() for kind in kinds)
