"""The menu: sections by what people do, each with its pages."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import URL

from app.core.i18n import gettext_noop
from app.core.roles import Role, is_at_least


@dataclass(frozen=True)
class Link:
    """A page of the menu, for this role and those above; `title` is translated when it is drawn."""

    href: str
    title: str
    least: Role = "viewer"


@dataclass(frozen=True)
class Section:
    """A section, which opens at its first page. On phones those that are `in_bar` stand in the bar, all in “More”."""

    title: str
    icon: str
    pages: tuple[Link, ...]
    in_bar: bool = True


MENU = (
    Section(gettext_noop("Home"), "layout-dashboard", (Link("/", gettext_noop("Overview")),)),
    Section(
        gettext_noop("Data"),
        "book-open-text",
        (
            Link("/corpora", gettext_noop("Corpora")),
            Link("/corpora/write", gettext_noop("Write records")),
            Link("/synthetic", gettext_noop("Synthetic data")),
        ),
    ),
    Section(
        gettext_noop("Train"),
        "activity",
        (
            Link("/jobs", gettext_noop("Jobs")),
            Link("/jobs/new", gettext_noop("New job")),
            Link("/jobs/queue", gettext_noop("Queue")),
            Link("/jobs/searches", gettext_noop("Searches")),
            Link("/jobs/presets", gettext_noop("Presets")),
        ),
    ),
    Section(
        gettext_noop("Models"),
        "package",
        (
            Link("/checkpoints", gettext_noop("Checkpoints")),
            Link("/models", gettext_noop("Base models")),
            Link("/tokenizers", gettext_noop("Tokenizers")),
            Link("/tasks?kind=export", gettext_noop("Exports")),
        ),
    ),
    Section(
        gettext_noop("Talk"),
        "message-square-text",
        (
            Link("/playground", gettext_noop("Playground")),
            Link("/playground/inspect", gettext_noop("Look inside")),
            Link("/deployments", gettext_noop("Deployments")),
            Link("/learn", gettext_noop("Learn")),
        ),
    ),
    Section(gettext_noop("Evaluate"), "gauge", (Link("/evaluations", gettext_noop("Evaluate")),), in_bar=False),
    Section(
        gettext_noop("System"),
        "server",
        (
            Link("/nodes", gettext_noop("Nodes")),
            Link("/usage", gettext_noop("Usage")),
            Link("/tasks", gettext_noop("Tasks")),
            Link("/health", gettext_noop("Health")),
            Link("/trash", gettext_noop("Trash")),
            Link("/account/people", gettext_noop("People"), "admin"),
            Link("/audit-log", gettext_noop("Audit log"), "admin"),
            Link("/api/docs", "API"),
        ),
        in_bar=False,
    ),
)


def pages_for(section: Section, role: str) -> list[Link]:
    """The pages of a section that a user with this role may open."""
    return [link for link in section.pages if is_at_least(role, link.least)]


def current_page(url: URL) -> Link | None:
    """The page of the menu that an address belongs to: the one whose path and query it shares most of."""
    links = [link for section in MENU for link in section.pages if _holds(link, url)]
    return max(links, key=lambda link: len(link.href), default=None)


def _holds(link: Link, url: URL) -> bool:
    parts = urlsplit(link.href)
    is_same_path = url.path == parts.path or (parts.path != "/" and url.path.startswith(f"{parts.path}/"))
    return is_same_path and set(parse_qsl(parts.query)) <= set(parse_qsl(url.query))
