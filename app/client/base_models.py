"""Base models: imported weights that training starts from."""

from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import TaskEnded
from .files import OnProgress, body_of, nothing
from .labels import LabeledRowList
from .shapes import BaseModelInfo
from .transport import address
from .waiting import ignore, wait_until_ended


class BaseModels(LabeledRowList[BaseModelInfo]):
    """Imported base models."""

    _path = "models"
    _shape = BaseModelInfo

    def create(self, *, name: str = "", reference: str = "") -> BaseModelInfo:
        """Create a base model to upload files to; with `reference` (owner/name@revision), import it from the hub."""
        return self._transport.post(BaseModelInfo, "/models", {"name": name, "reference": reference})

    def upload_file(self, model_id: str, path: Path | str, on_progress: OnProgress = nothing) -> BaseModelInfo:
        """Upload one file of a model: config.json, *.safetensors, a tokenizer file, or one .zip or .tar of them."""
        file = Path(path)
        target = address("models", model_id, "files", file.name)
        body = body_of(file, on_progress)
        return self._transport.upload(BaseModelInfo, "PUT", target, body, file.stat().st_size)

    def start_import(self, model_id: str) -> BaseModelInfo:
        """Validate the uploaded files in the background."""
        return self._transport.post(BaseModelInfo, address("models", model_id, "import"))

    def upload(self, folder: Path | str, *, name: str = "", on_progress: OnProgress = nothing) -> BaseModelInfo:
        """Upload the files of a folder in Hugging Face layout, or one archive of them, and start the import."""
        source = Path(folder)
        files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
        model = self.create(name=name or source.stem)
        for path in files:
            self.upload_file(model.id, path, on_progress)
        return self.start_import(model.id)

    def wait(self, model_id: str, on_change: Callable[[BaseModelInfo], None] = ignore) -> BaseModelInfo:
        """Wait until a model is imported. Raises TaskEnded with the first problem if that fails."""
        model = wait_until_ended(lambda: self.get(model_id), {"importing"}, on_change)
        if model.state == "failed":
            raise TaskEnded(model.problems[0].message if model.problems else model.state)
        return model

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
    ) -> Iterator[BaseModelInfo]:
        """Your base models, newest first, read in pages of `limit`: all, or those with a text in their name, tags
        or notes, with a tag, of a source (upload or hub), in a state, or of an `owner` (own, or shared by others).
        `order` is newest, name or size.
        """
        query = {"q": search, "tag": tag, "source": source, "state": state, "owner": owner, "order": order}
        return self._transport.pages(BaseModelInfo, "/models", limit=limit, **query)

    def get(self, model_id: str) -> BaseModelInfo:
        """A base model with its problems and limits."""
        return self._transport.get(BaseModelInfo, address("models", model_id))

    def rename(self, model_id: str, name: str) -> BaseModelInfo:
        """Rename a base model."""
        return self._transport.patch(BaseModelInfo, address("models", model_id), {"name": name})

    def delete(self, model_id: str) -> None:
        """Delete a model and its files."""
        self._transport.delete(address("models", model_id))
