"""What the child process that trains a tokenizer is asked for: a file in the directory of the tokenizer."""

from pydantic import BaseModel

from trainer.run_dir import CorpusInput

REQUEST = "request.json"


class TrainingRequest(BaseModel):
    """What to train. `model_kind` adds the special tokens that encoders or encoder-decoders need."""

    corpora: list[CorpusInput]
    vocab_size: int | None
    special_tokens: list[str]
    model_kind: str
    sample_bytes: int
