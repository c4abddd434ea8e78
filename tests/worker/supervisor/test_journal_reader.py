from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.events import Journal
from worker.supervisor.journal_reader import BATCH_EVENTS, JournalReader


def write(journal: Journal, count: int) -> None:
    for _ in range(count):
        journal.points(1, loss=1.0)


@given(turns=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), max_queued=st.integers(1, 8))
@settings(max_examples=30)
def test_each_event_is_read_once_and_reaches_the_database_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[int, bool]], max_queued: int
) -> None:
    path = Path(tmp_path_factory.mktemp("journal")) / "events.jsonl"
    reader = JournalReader(path, max_queued)
    seen: list[int] = []
    recorded: list[int] = []
    with closing(Journal(path)) as journal:
        for count, is_database_there in turns:
            write(journal, count)
            seen += [event.seq for event in reader.read_new()]
            if is_database_there:
                batch = reader.next_batch()
                recorded += [event.seq for event in batch]
                reader.drop(len(batch))
    while batch := reader.next_batch():
        recorded += [event.seq for event in batch]
        reader.drop(len(batch))
    assert reader.is_drained
    assert seen == recorded == list(range(1, len(seen) + 1))


def test_an_unrecorded_batch_is_sent_again(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "events.jsonl")
    with closing(Journal(reader.path)) as journal:
        write(journal, BATCH_EVENTS + 1)
    reader.read_new()
    assert not reader.is_drained
    assert reader.next_batch() == reader.next_batch()
    assert len(reader.next_batch()) == BATCH_EVENTS
