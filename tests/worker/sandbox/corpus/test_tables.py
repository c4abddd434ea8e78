"""Tables as corpora: rows become records, bad rows are named by their line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.json_shapes import Problem
from app.corpora import problems
from worker.sandbox.corpus import parse


def parsed(directory: Path, text: str, form: str = "csv", skip_bad: bool = False) -> dict[str, object]:
    (directory / "upload").write_text(text, newline="")
    return parse.parse(directory, form, None, skip_bad, lambda done: None)


def test_rows_become_records_by_the_header_names(tmp_path: Path) -> None:
    records = parsed(tmp_path, 'Text,Label\r\n"good, ""very""\r\ngood",1\r\n\r\nbad,0\r\n')

    assert records["kind"] == "classification"
    assert records["num_documents"] == 2
    assert (tmp_path / "text.bin").read_text() == (
        '{"text":"good, \\"very\\"\\r\\ngood","label":"1"}{"text":"bad","label":"0"}'
    )


def test_the_cells_of_a_tsv_are_separated_by_tabs(tmp_path: Path) -> None:
    assert parsed(tmp_path, "source\ttarget\n天\theaven\n", "tsv")["kind"] == "seq2seq"


def refused(directory: Path, text: str) -> Iterator[str]:
    with pytest.raises(parse.UnreadableCorpus) as caught:
        parsed(directory, text)
    for problem in caught.value.report["problems"]:
        line = problem.pop("line")
        yield f"{line}: {problems.sentence(Problem(**problem))}"


def test_a_header_that_names_no_kind_of_record_is_rejected(tmp_path: Path) -> None:
    assert list(refused(tmp_path, "a,b\n1,2\n")) == [
        "1: The first row must contain column names: text and label, prompt and completion, source and target, "
        "or prompt, chosen and rejected. It contains: a, b. Say on this page what each column is."
    ]


def test_bad_rows_are_reported_with_their_line(tmp_path: Path) -> None:
    table = "text,label\ngood,1\nbad\n,0\n"

    assert list(refused(tmp_path, table)) == [
        "3: The row has 1 cell, but the first row has 2.",
        "4: The value of “text” is empty.",
    ]
    assert parsed(tmp_path, table, skip_bad=True)["num_documents"] == 1


@pytest.mark.parametrize(
    "table",
    [
        "text,label,,\ngood,1,,\nbad,0,,\n",
        "text,label\ngood,1,,\nbad,0,\n",
        "text|label\ngood|1\nbad|0",
        "sep=;\r\ntext;label\r\ngood;1\r\nbad;0\r\n",
        "\n\ufefftext\tlabel\ngood\t1\n\ufefftext\tlabel\nbad\t0\n",
        '\ufeff"text","label"\n"good","1"\n\ufeff"text","label"\n"bad","0"\n',
    ],
)
def test_artifacts_of_spreadsheets_are_removed(tmp_path: Path, table: str) -> None:
    assert parsed(tmp_path, table)["num_documents"] == 2
    assert (tmp_path / "text.bin").read_text() == '{"text":"good","label":"1"}{"text":"bad","label":"0"}'


def test_cells_keep_their_white_space_and_quotes(tmp_path: Path) -> None:
    parsed(tmp_path, 'text,label\n" a\n\ufeffb ",1\n')
    assert (tmp_path / "text.bin").read_text() == '{"text":" a\\n\ufeffb ","label":"1"}'


def test_an_unnamed_column_is_listed_and_a_duplicate_name_is_rejected(tmp_path: Path) -> None:
    result = parsed(tmp_path, ",text,label\n0,good,1\n")
    assert result["progress"]["unused_keys"] == {"column 1": 1}  # type: ignore[index]
    assert list(refused(tmp_path, "text,label,x,x\ngood,1,2,3\n")) == [
        "1: The first row names the column “x” twice. Rename one of them."
    ]


def test_cells_after_the_last_column_are_rejected(tmp_path: Path) -> None:
    assert list(refused(tmp_path, "text,label\ngood,1,2\n")) == ["2: The row has 3 cells, but the first row has 2."]
