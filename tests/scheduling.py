"""How pytest-xdist hands out the tests to its worker processes."""

from xdist.scheduler import LoadFileScheduling

ONE_INSTALLATION = ("tests/faults/", "tests/browser/")  # folders whose files share an installation and its jobs


class FolderScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Gives each file to one worker process, and each folder of ONE_INSTALLATION too."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in ONE_INSTALLATION if nodeid.startswith(folder)), nodeid.split("::")[0])
