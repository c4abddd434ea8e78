"""What the column `dataset` of a corpus holds. Pydantic only. Values are frozen: assign new ones."""

from pydantic import BaseModel, ConfigDict


class SkippedFile(BaseModel):
    """A file of a data set that is not downloaded, and the code of the reason (app/corpora/hub_datasets.py)."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class HubDataset(BaseModel):
    """The data set of a hub, or a folder of it, whose files a corpus is made of."""

    model_config = ConfigDict(frozen=True)

    endpoint: str
    name: str  # with its owner
    revision: str
    folder: str = ""
    commit: str = ""  # until its files are listed
    num_bytes: int = 0  # of the files that are downloaded
    skipped: list[SkippedFile] = []  # the first of them
    num_skipped: int = 0
