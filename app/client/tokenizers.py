"""Tokenizers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .errors import TaskEnded
from .files import OnProgress, body_of, nothing
from .labels import LabeledRowList
from .tokenizer_shapes import TokenizationInfo, TokenizationsInfo, TokenizerInfo
from .transport import address
from .waiting import ignore, wait_until_ended


class Tokenizers(LabeledRowList[TokenizerInfo]):
    """What divides text into tokens: trained by jobs, trained by itself, or imported."""

    _path = "tokenizers"
    _shape = TokenizerInfo

    def train(
        self,
        corpora: Sequence[str],
        *,
        name: str = "",
        vocab_size: int | None = None,
        special_tokens: Sequence[str] = (),
        model_kind: str = "decoder",
        sample_bytes: int | None = None,
    ) -> TokenizerInfo:
        """Train a byte-level BPE tokenizer on corpora, in the background: `wait` for it. Without `vocab_size`, it
        depends on the size of the text. `model_kind` is decoder, encoder or encoder_decoder.
        """
        body = {
            "corpora": list(corpora),
            "name": name,
            "vocab_size": vocab_size,
            "special_tokens": list(special_tokens),
            "model_kind": model_kind,
        }
        more = {} if sample_bytes is None else {"sample_bytes": sample_bytes}
        return self._transport.post(TokenizerInfo, "/tokenizers", {**body, **more})

    def import_file(
        self, path: Path | str, *, name: str = "", end_of_text: str = "", on_progress: OnProgress = nothing
    ) -> TokenizerInfo:
        """Import a tokenizer.json, a SentencePiece model, or an archive of tokenizer files, in the background: `wait`
        for it. `end_of_text` is needed only where the file does not name its end-of-text token.
        """
        file = Path(path)
        return self._transport.upload(
            TokenizerInfo,
            "POST",
            "/tokenizers/import",
            body_of(file, on_progress),
            file.stat().st_size,
            filename=file.name,
            name=name,
            end_of_text=end_of_text,
        )

    def wait(self, tokenizer_id: str, on_change: Callable[[TokenizerInfo], None] = ignore) -> TokenizerInfo:
        """Wait until a tokenizer is ready. Raises TaskEnded with the first problem if it fails."""
        tokenizer = wait_until_ended(lambda: self.get(tokenizer_id), {"preparing"}, on_change)
        if tokenizer.state == "failed":
            raise TaskEnded(tokenizer.problems[0].message if tokenizer.problems else tokenizer.state)
        return tokenizer

    def compare(self, text: str, tokenizers: Sequence[str]) -> Sequence[TokenizationInfo]:
        """What up to four tokenizers make of a text: the IDs are those of tokenizers or of imported base models."""
        body = {"text": text, "tokenizers": list(tokenizers)}
        return self._transport.post(TokenizationsInfo, "/tokenizers/compare", body).data

    def list(
        self,
        limit: int = 50,
        *,
        search: str | None = None,
        tag: str | None = None,
        source: str | None = None,
        state: str | None = None,
        owner: str | None = None,
        order: str | None = None,
    ) -> Iterator[TokenizerInfo]:
        """Your tokenizers, newest first, read in pages of `limit`: all, or those with a text in their name, tags or
        notes, with a tag, of a source (job, training or import), in a state, or of an `owner` (own or shared). `order`
        is newest, name or size.
        """
        query = {"q": search, "tag": tag, "source": source, "state": state, "owner": owner, "order": order}
        return self._transport.pages(TokenizerInfo, "/tokenizers", limit=limit, **query)

    def get(self, tokenizer_id: str) -> TokenizerInfo:
        """A tokenizer."""
        return self._transport.get(TokenizerInfo, address("tokenizers", tokenizer_id))

    def rename(self, tokenizer_id: str, name: str) -> TokenizerInfo:
        """Rename a tokenizer."""
        return self._transport.patch(TokenizerInfo, address("tokenizers", tokenizer_id), {"name": name})

    def delete(self, tokenizer_id: str) -> None:
        """Delete a tokenizer; checkpoints hold their own copies."""
        self._transport.delete(address("tokenizers", tokenizer_id))
