"""What setuptools puts into a wheel: the client. The server runs from its checkout (`make up`, the Docker image)."""

from setuptools.command.build_py import build_py  # type: ignore[import-untyped]

CLIENT = "athanor"


class BuildClient(build_py):  # type: ignore[misc]
    """Leaves out the server's packages, except in an editable install, which is how a checkout runs."""

    def finalize_options(self) -> None:
        """Choose the packages."""
        super().finalize_options()
        if not self.editable_mode:
            names: list[str] = self.distribution.packages
            self.packages = [name for name in names if name.partition(".")[0] == CLIENT]
