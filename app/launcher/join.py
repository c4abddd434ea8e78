"""`athanor join`: makes this machine a node of an installation elsewhere, and starts its worker.

What the panel answers is stored, for this user alone, in `node.json` in the configuration directory, as the values of
environment variables. `athanor worker` and `athanor doctor` read it.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import typer

from app.checkpoints import signature
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


def use_configuration() -> None:
    """Set the environment variables of this node, each unless it is set, if this machine has joined.

    An environment that names a database is that of another installation, such as one of `athanor up`: it stays alone.
    """
    if settings().database_url or not configuration_file().exists():
        return
    try:
        variables: dict[str, str] = json.loads(configuration_file().read_text())
    except ValueError as error:
        typer.echo(_("{path} is not JSON: {why}.", path=configuration_file(), why=error), err=True)
        raise typer.Exit(2) from None
    os.environ.update({name: value for name, value in variables.items() if not os.environ.get(name)})
    settings.cache_clear()


def run(url: str, token: str, name: str, *, allow_http: bool) -> None:
    """Redeem a token, store what the node needs, and check that this machine reaches it. Raises CannotJoin."""
    _check_url(url, allow_http)
    try:
        configuration = client.join(url, token, name, migrations.newest())
    except AthanorError as error:
        raise CannotJoin(str(error)) from None
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


def _store(configuration: NodeConfigurationInfo, name: str) -> dict[str, str]:
    """Write the files and variables of this node, for its user alone; returns the variables."""
    directory = configuration_file().parent / "node"
    make_private(directory)
    paths = {file: directory / Path(file).name for file in configuration.files}
    for file, path in paths.items():
        _write(path, configuration.files[file])
    variables = {
        "DATABASE_URL": with_files(configuration.database_url, paths),
        "REDIS_URL": with_files(configuration.redis_url, paths),
        "ATHANOR_DATA": os.environ.get("ATHANOR_DATA") or configuration.data,
        "ATHANOR_NODE_NAME": name,
    }
    _write(configuration_file(), json.dumps(variables, indent=2) + "\n")
    return variables


def _write(path: Path, text: str) -> None:
    """Replace a file by one that only this user can read, whatever the mode of the old one."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _checks(configuration: NodeConfigurationInfo) -> Iterator[Finding]:
    yield from doctor.servers()
    yield _data_directory(configuration.key_sha256)
    if _is_node_already():
        sentence = _("A worker already runs on this machine with the data in {path}.", path=storage.data())
        yield Finding("bad", sentence)


def _data_directory(key_sha256: str) -> Finding:
    """Whether the data directory here is that of the panel, and this user may write there."""
    path = storage.data()
    try:
        is_same = hashlib.sha256(signature.key_path().read_bytes()).hexdigest() == key_sha256
        with tempfile.TemporaryFile(dir=path):
            pass
    except FileNotFoundError:
        is_same = False
    except OSError as error:
        sentence = _(
            "The data directory {path} cannot be used by the user with the number {uid}: {why}. Run the worker as a "
            "user with the number that the files there belong to.",
            path=path,
            uid=os.getuid(),
            why=error.strerror,
        )
        return Finding("bad", sentence)
    if not is_same:
        sentence = _(
            "{path} is not the panel's data directory. Mount that there, or set ATHANOR_DATA to where it is mounted.",
            path=path,
        )
        return Finding("bad", sentence)
    return Finding("ok", _("{path} is the panel's data directory, and can be written to", path=path))


def _is_node_already() -> bool:
    """Whether `athanor up` runs a worker with this data directory here; two would share its sockets."""
    return processes.from_pid_file(run_directory() / "worker.pid") is not None


def _print(finding: Finding) -> str:
    """Print a finding as soon as there is one; returns its grade."""
    typer.echo(doctor.line(finding))
    return finding.grade
