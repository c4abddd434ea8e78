"""The menu: which of its pages an address belongs to."""

import pytest
from starlette.datastructures import URL
from starlette.testclient import TestClient

from app.web.navigation import MENU, current_page


@pytest.mark.parametrize(
    ("address", "title"),
    [
        ("/", "Overview"),
        ("/corpora", "Corpora"),
        ("/corpora/06e9", "Corpora"),
        ("/corpora/write?kind=chat", "Write records"),
        ("/jobs/06e9/edit", "Jobs"),
        ("/jobs/new", "New job"),
        ("/tasks", "Tasks"),
        ("/tasks?kind=parse", "Tasks"),
        ("/tasks?after=x&kind=export", "Exports"),
        ("/playground/inspect", "Look inside"),
        ("/evaluations", "Evaluate"),
        ("/account", None),
        ("/jobsearch", None),
    ],
)
def test_an_address_belongs_to_one_page(address: str, title: str | None) -> None:
    page = current_page(URL(address))

    assert (page.title if page is not None else None) == title


def test_every_page_of_the_menu_opens_and_marks_itself_once_in_the_sidebar(alice: TestClient) -> None:
    for section in MENU:
        for page in section.pages:
            answer = alice.get(page.href)
            assert answer.status_code == 200, page.href
            if page.href == "/api/docs":
                continue  # the viewer has a page of its own
            sidebar = answer.text.partition('<nav class="sidebar"')[2].partition("</nav>")[0]
            assert sidebar.count('aria-current="page"') == 1, page.href
            assert f'<a href="{page.href}" aria-current="page">' in sidebar
