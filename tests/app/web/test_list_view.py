"""The address of a list: what it says, and what counts as left out."""

from app.web.list_view import ListView

ORDERS = ("newest", "name")


def view(**sent: str) -> ListView:
    return ListView.of("/things", sent, ORDERS, kind=("", "text"), tag=())


def test_an_address_says_what_differs_from_the_defaults() -> None:
    assert view().address() == "/things"
    narrow = view(q=" a&b ", kind="text", order="name")
    assert (narrow["q"], narrow["kind"], narrow["tag"], narrow["order"]) == ("a&b", "text", "", "name")
    assert narrow.address() == "/things?q=a%26b&kind=text&order=name"
    assert narrow.address(after="06x", kind="") == "/things?q=a%26b&order=name&after=06x"
    assert narrow.address(after="") == narrow.address()


def test_what_is_unknown_counts_as_left_out_and_texts_are_cut() -> None:
    odd = view(kind="other", order="worst", q="x" * 500, tag="a\0b")
    assert (odd["kind"], odd["order"], len(odd["q"]), odd["tag"]) == ("", "newest", 200, "ab")


def test_only_filters_leave_out_rows() -> None:
    assert not view(order="name").is_narrow
    assert all(view(**{name: value}).is_narrow for name, value in (("q", "x"), ("kind", "text"), ("tag", "t")))
