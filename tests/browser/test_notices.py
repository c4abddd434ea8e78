"""The list of notices in a browser, while a job finishes."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, finished_job
from tests.stack import Stack

JOB = {"corpora": ["00kingjamesbible"], "max_steps": 20}


@pytest.mark.usefixtures("trained")
def test_a_finished_job_appears_in_the_list_and_is_counted(open_page: Open, running_stack: Stack) -> None:
    running_stack.client.post("/api/v1/notices/read")
    with open_page("/notices") as page:
        count = page.locator(".sidebar [data-unread]")
        expect(count).to_be_hidden()
        finished_job(running_stack, name="a job that is noticed", **JOB)
        first = page.locator(".notices li").first
        expect(first).to_contain_text("“a job that is noticed” has finished")
        expect(first).to_contain_text("New")
        expect(count).to_have_text("1")
        first.get_by_role("button", name="Open the job").click()
        page.wait_for_url("**/jobs/*")
        expect(count).to_be_hidden()


def test_the_list_in_another_tab_shows_it_too(open_page: Open, running_stack: Stack) -> None:
    with open_page("/notices") as page, page.context.expect_page() as opened:
        page.evaluate("open('/notices')")
        other = opened.value
        other.wait_for_load_state("load")
        finished_job(running_stack, name="a job in two tabs", **JOB)
        for tab in (page, other):
            expect(tab.locator(".notices li").first).to_contain_text("“a job in two tabs” has finished")
        other.get_by_role("button", name="Mark all as read").click()
        expect(other.locator(".sidebar [data-unread]")).to_be_hidden()
