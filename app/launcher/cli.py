"""The command line `athanor`. Each command imports what it needs when it runs, so that help is instant."""

import locale as system_locale
import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated

import typer

from app.client.commands.root import commands as client_commands
from app.core import i18n
from app.core.i18n import _
from app.core.own_directories import UnsafeDirectory
from app.core.settings import ROOT, settings

cli = typer.Typer(
    name="athanor",
    help="Train, watch, try and serve language models of your own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(client_commands)
THREADS = 8  # of the Celery worker; its tasks take milliseconds


@cli.callback()
def _use_language(context: typer.Context) -> None:
    language = system_locale.getlocale()[0] or os.environ.get("LANG", "")
    context.with_resource(i18n.use_locale("zh-CN" if language.startswith("zh") else "en"))


@cli.command()
def up() -> None:
    """Start everything on this machine: PostgreSQL, Valkey, web, scheduler and a worker."""
    from app.launcher import up as sequence

    raise typer.Exit(sequence.run())


@cli.command()
def demo() -> None:
    """Start everything with a demo account and a first training run."""
    from app.launcher import demo as show
    from app.launcher import up as sequence

    raise typer.Exit(sequence.run(show.prepare))


@cli.command()
def web(fd: int = typer.Option(-1, hidden=True)) -> None:
    """Start a web process."""
    from app.core import log_lines
    from app.core.processes import WEB_SECRETS
    from app.launcher import up as sequence
    from app.web.server import create_server

    without_secrets(WEB_SECRETS)
    log_lines.configure()
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs each time the revision is read
    need_servers()
    with ExitStack() as stack:
        listener = socket.socket(fileno=fd) if fd >= 0 else sequence.listen(settings().host, settings().port)
        stack.callback(listener.close)
        create_server("app.main:app").run(sockets=[listener])


@cli.command()
def scheduler() -> None:
    """Start a scheduler. Several may run; one of them is active."""
    from app.core.processes import SCHEDULER_SECRETS

    need_servers()
    without_secrets(SCHEDULER_SECRETS)
    replace_process("-m", "app.jobs.scheduling.scheduler")


@cli.command()
def worker() -> None:
    """Start the worker of this node."""
    from app.core.processes import WORKER_SECRETS
    from app.core.queue import BACKGROUND_QUEUE, node_queue
    from app.launcher import join as joining

    without_secrets(WORKER_SECRETS)
    if key_sha256 := joining.use_configuration():
        joining.require_data_directory(key_sha256)
    need_servers()
    queues = ",".join((node_queue(settings().node_name), BACKGROUND_QUEUE))
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    name = ["-n", f"athanor@{settings().node_name}"]
    pool = ["-P", "threads", "-c", str(THREADS), "-Q", queues]
    replace_process("-m", "celery", "-A", "worker.celery_app", "worker", *pool, *name, *quiet)


@cli.command()
def join(
    url: Annotated[str, typer.Argument(help="Address of the panel, such as https://panel.example.com.")],
    token: Annotated[str, typer.Argument(help="A join token of its page Nodes; asked for if left out.")] = "",
    name: Annotated[str | None, typer.Option(help="Name of the node; the host name if left out.")] = None,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Let the credentials cross the network in the clear.")
    ] = False,
) -> None:
    """Make this machine a node of an installation on another one, and start its worker."""
    from app.core.processes import WORKER_SECRETS
    from app.launcher import join as joining

    without_secrets(WORKER_SECRETS)  # before the token is used: this starts the command again
    try:
        joining.run(url, token or _read_token(), name or settings().node_name, allow_http=allow_http)
    except joining.CannotJoin as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(_("The worker starts. From now on `athanor worker` starts it; Ctrl-C stops it."))
    worker()


def _read_token() -> str:
    """A join token that is not among the arguments: from a hidden prompt, or a line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt(_("Join token"), hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


@cli.command()
def migrate() -> None:
    """Migrate the database to this version and add the sample corpora."""
    from app.core import db, migrations
    from app.corpora import service as corpora
    from app.launcher import up as sequence

    need_servers(broker=False)
    migrations.upgrade()
    with db.transaction() as session:
        corpora.install_samples(session)
    typer.echo(_("The database is at revision {revision}.", revision=migrations.present()))
    sequence.say_link(f"http://{sequence.url_host(settings().host)}:{settings().port}")


@cli.command()
def rescan() -> None:
    """Restore jobs and checkpoints that are on disk but not in the database, and verify damaged checkpoints again."""
    from app.jobs.scheduling import rescan as search
    from app.launcher import up as sequence

    try:
        sequence.find_database()
    except sequence.CannotStart as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    for sentence in search.rescan():
        typer.echo(sentence)


@cli.command("reset-password")
def reset_password(name: str) -> None:
    """Print a link with which a user chooses a new password, once, within 24 hours; for an owner who is locked out."""
    from app.core.errors import PanelError
    from app.launcher import password_reset
    from app.launcher import up as sequence

    try:
        sequence.find_database()
        link = password_reset.create_link(name)
    except (sequence.CannotStart, PanelError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(_("Open {link}", link=link))


@cli.command()
def doctor() -> None:
    """Check this machine and say how to fix what is missing."""
    from app.launcher import doctor as checks
    from app.launcher import join as joining

    raise typer.Exit(checks.run(joining.use_configuration()))


def need_servers(broker: bool = True) -> None:
    """Exit with code 2 if DATABASE_URL, or REDIS_URL when the broker is needed, is not set; close the data directory.

    Raises UnsafeDirectory.
    """
    from app.core import storage

    addresses = {"DATABASE_URL": settings().database_url, "REDIS_URL": settings().redis_url or not broker}
    for name, value in addresses.items():
        if not value:
            sentence = _("{name} is not set. Set it, or run `athanor up`, which starts everything.", name=name)
            typer.echo(sentence, err=True)
            raise typer.Exit(2)
    storage.prepare()


def without_secrets(needed: Sequence[str] = ()) -> None:
    """Start this command again if it was given secrets that it does not need: /proc shows what it was started with."""
    from app.core.processes import environment_without_secrets

    environment = environment_without_secrets(needed)
    if len(environment) < len(os.environ):
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, environment)  # noqa: S606 - an argument list, no shell


def replace_process(*arguments: str) -> None:
    """Replace this process by another Python program, which then receives the signals itself."""
    os.environ["ATHANOR_DATA"] = str(settings().data.resolve())
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - an argument list, no shell


def main() -> None:
    """The entry point of the console command `athanor`."""
    os.umask(0o077)  # of this process and all that it starts
    try:
        cli()
    except UnsafeDirectory as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
