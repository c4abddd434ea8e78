"""`athanor join`: makes this machine a node of an installation elsewhere, and starts its worker.

What the panel answers is stored, for this user alone, in `node.json` in the configuration directory: the values of
environment variables, and `key_sha256`, by which the shared data directory is recognized. `athanor worker` and `athanor
doctor` read it.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import typer

from app.client import nodes as client
from app.client.errors import AthanorError
from app.client.nodes import NodeConfigurationInfo
from app.core import migrations, processes, storage
from app.core.addresses import is_loopback
from app.core.i18n import _
from app.core.own_directories import make_private
from app.core.settings import run_directory, settings
from app.jobs.cluster.node_configuration import with_files
from app.launcher import doctor
from app.launcher.doctor import Finding


class CannotJoin(RuntimeError):
    """This machine cannot become a node. The message is a translated sentence for the terminal."""


def configuration_file() -> Path:
    """The file that holds the variables of this node."""
    return Path(typer.get_app_dir("athanor")) / "node.json"


def use_configuration() -> str:
    """Set the environment variables of this node, each unless it is set, if this machine has joined.

    Returns the SHA-256 of the key in the panel's data directory, or "" where none is stored. An environment that names
    a database is that of another installation, such as one of `athanor up`: it stays alone.
    """
    if settings().database_url:
        return ""
    try:
        stored = json.loads(configuration_file().read_text())
        if not isinstance(stored, dict):
            raise ValueError(_("it must be an object"))
        variables = {name: str(value) for name, value in stored.items()}
        key_sha256 = variables.pop("key_sha256", "")
        os.environ.update({name: value for name, value in variables.items() if not os.environ.get(name)})
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        typer.echo(_("{path} cannot be read as JSON: {why}.", path=configuration_file(), why=why), err=True)
        raise typer.Exit(2) from None
    settings.cache_clear()
    return key_sha256


def require_data_directory(key_sha256: str) -> None:
    """Exit with code 2 unless the data directory is that of the panel."""
    finding = doctor.data_directory(key_sha256)
    if finding.grade == "bad":
        typer.echo(finding.text, err=True)
        raise typer.Exit(2)


def run(url: str, token: str, name: str, *, allow_http: bool) -> None:
    """Redeem a token, store what the node needs, and check that this machine reaches it. Raises CannotJoin."""
    _check_url(url, allow_http)
    if not token:
        raise CannotJoin(_("A join token is missing. An owner creates one on the page Nodes."))
    with _storing():  # before the token is spent
        _prepare()
    try:
        configuration = client.join(url, token, name, migrations.newest())
    except AthanorError as error:
        raise CannotJoin(str(error)) from None
    with _storing():
        variables = _store(configuration, name)
    os.environ.update(variables)
    settings.cache_clear()
    grades = [_print(finding) for finding in _checks(configuration)]
    if "bad" in grades:
        raise CannotJoin(
            _(
                "This machine joined as {name}, but its worker was not started. Correct what is BAD above, here or on "
                "the panel's machine, or the addresses in {path}. Then run `athanor doctor`, and `athanor worker`.",
                name=name,
                path=configuration_file(),
            )
        )


def _check_url(url: str, allow_http: bool) -> None:
    """Raise CannotJoin for an address to which a token must not be sent."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        raise CannotJoin(_("{url} is not the address of a panel, such as https://panel.example.com.", url=url))
    if parts.scheme == "http" and not is_loopback(host) and not allow_http:
        raise CannotJoin(
            _(
                "Over http, the credentials of the database would cross the network in the clear. Use the panel's "
                "https address or, in a network that nobody else reads, add --allow-http."
            )
        )


@contextmanager
def _storing() -> Iterator[None]:
    """Raise CannotJoin where a file cannot be written."""
    try:
        yield
    except OSError as error:
        sentence = _(
            "What the panel sends cannot be stored in {path}: {why}. Correct that and run the command again, with a "
            "new token if this one was used.",
            path=configuration_file().parent,
            why=error.strerror,
        )
        raise CannotJoin(sentence) from None


def _prepare() -> None:
    """Create the directory of this node's files and check that files can be written. Raises OSError."""
    make_private(_files_directory())
    for path in (_files_directory(), configuration_file().parent):
        with tempfile.TemporaryFile(dir=path):
            pass


def _files_directory() -> Path:
    """The directory of this node's certificates and keys."""
    return configuration_file().parent / "node"


def _store(configuration: NodeConfigurationInfo, name: str) -> dict[str, str]:
    """Write the files and variables of this node, for its user alone; returns the variables."""
    paths = {file: _files_directory() / Path(file).name for file in configuration.files}
    for file, path in paths.items():
        _write(path, configuration.files[file])
    variables = {
        "DATABASE_URL": with_files(configuration.database_url, paths),
        "REDIS_URL": with_files(configuration.redis_url, paths),
        "ATHANOR_DATA": os.environ.get("ATHANOR_DATA") or configuration.data,
        "ATHANOR_NODE_NAME": name,
    }
    stored = {**variables, "key_sha256": configuration.key_sha256}
    _write(configuration_file(), json.dumps(stored, indent=2) + "\n")
    return variables


def _write(path: Path, text: str) -> None:
    """Replace a file by one that only this user can read, whatever the mode of the old one."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _checks(configuration: NodeConfigurationInfo) -> Iterator[Finding]:
    yield from doctor.servers()
    yield doctor.data_directory(configuration.key_sha256)
    if _is_node_already():
        sentence = _("A worker already runs on this machine with the data in {path}.", path=storage.data())
        yield Finding("bad", sentence)


def _is_node_already() -> bool:
    """Whether `athanor up` runs a worker with this data directory here; two would share its sockets."""
    return processes.from_pid_file(run_directory() / "worker.pid") is not None


def _print(finding: Finding) -> str:
    """Print a finding as soon as there is one; returns its grade."""
    typer.echo(doctor.line(finding))
    return finding.grade
