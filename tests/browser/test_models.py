"""A base model in the browser: it is uploaded as a folder, and sets the architecture in the form of a new job."""

from playwright.sync_api import expect

from tests.browser.conftest import Open, until_started


def test_a_base_model_fixes_the_network_fields_of_the_form(open_page: Open, base_model: str) -> None:
    with open_page(f"/models/{base_model}") as page:
        page.locator(".page-header").get_by_role("link", name="Fine-tune").click()
        page.wait_for_url("**/jobs/new?base_model=*")
        until_started(page)
        assert page.locator("[name=recipe]:checked").get_attribute("value") == "classifier"
        size, layers = page.locator("[name=hidden_size]"), page.locator("[name=num_hidden_layers]")
        assert (size.is_disabled(), size.get_attribute("placeholder")) == (True, "32 (base model)")
        assert page.locator("[name=tokenizer]").is_disabled()
        page.get_by_label("Base model", exact=True).select_option("")
        expect(size).to_be_enabled()
        expect(size).to_have_attribute("placeholder", "128 (recipe)")
        page.locator("summary", has=page.get_by_text("Layers")).click()
        layers.fill("3")
        page.get_by_label("Base model", exact=True).focus()  # as a click on it does; the field in focus keeps its text
        page.get_by_label("Base model", exact=True).select_option(base_model)
        expect(layers).to_have_value("")
        expect(layers).to_have_attribute("placeholder", "2 (base model)")
