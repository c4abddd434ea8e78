import io
import math
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.formats import jsonlines
from trainer.formats.jsonlines import LineSplitter, LineTooLong

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        yield ours, theirs


@given(messages=st.lists(st.dictionaries(st.text(), JSON)), size=st.integers(1, 9))
def test_messages_split_anywhere_are_reassembled(messages: list[jsonlines.Message], size: int) -> None:
    data = b"".join(map(jsonlines.encode, messages))
    splitter = LineSplitter()
    received = [message for at in range(0, len(data), size) for message in splitter.messages(data[at : at + size])]
    assert received == messages


def test_a_message_is_received_without_reading_further_bytes(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b'{"serve": ')
    theirs.sendall(b'"gang"}\nthe rest')
    assert jsonlines.receive(ours) == {"serve": "gang"}
    assert ours.recv(100) == b"the rest"


def test_a_connection_closed_within_a_line_gives_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(b'{"half": ')
    theirs.close()
    assert jsonlines.receive(ours) is None


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_a_line_that_is_too_long_is_rejected(pair: tuple[socket.socket, socket.socket], ending: bytes) -> None:
    ours, theirs = pair
    theirs.sendall(b"x" * 300 + ending)
    with pytest.raises(LineTooLong):
        jsonlines.receive(ours, max_bytes=200)
    with pytest.raises(LineTooLong):
        LineSplitter(200).lines(b"x" * 300)


def test_non_finite_numbers_are_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonlines.write(io.StringIO(), {"loss": math.nan})
