"""The kinds of corpora: what one document or record of each holds. Standard library only, for the sandboxed parser."""

# A document of the kind text is running text. Records of the other kinds: see worker/sandbox/corpus/record_schema.py.
CORPUS_KINDS = ("text", "chat", "completion", "classification", "preference", "seq2seq", "multiple_choice")
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
