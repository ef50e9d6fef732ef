"""The text of a table's file: encodings, lines that are wrong, and files without lines."""

import gzip

import numpy as np
import pytest

from tests.data.tables import opened, refused, written

TEXT = "h\u00f6he,farbe\n1.5,gr\u00fcn\n2,rot\n"
ROWS = [[1.5, 1, 0], [2, 0, 1]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_whose_encoding_a_mark_tells_is_read(tmp_path, capsys, encoding, packed):
    data = TEXT.encode(encoding)
    name = "rows.csv.gz" if packed else "rows.csv"
    source = opened(written(tmp_path, gzip.compress(data) if packed else data, name))
    assert source[:].x.tolist() == ROWS
    assert source.spec.columns[0].name == "h\u00f6he" and capsys.readouterr().err == ""


def test_utf_16_of_the_other_byte_order(tmp_path):
    source = opened(written(tmp_path, ("\ufeff" + TEXT * 1).encode("utf-16-be")))
    assert source[:].x.tolist() == ROWS


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "mac_roman"])
def test_the_option_encoding_reads_others(tmp_path, encoding):
    text = written(tmp_path, TEXT.encode(encoding))
    source = opened(f"{text}?encoding={encoding}")
    assert source[:].x.tolist() == ROWS
    assert [each.name for each in source.spec.columns] == ["h\u00f6he", "farbe"]
    # a mark says more than the option, which may be that of a run
    assert opened(written(tmp_path, TEXT.encode("utf-16")) + f"?encoding={encoding}")[:].x.any()


def test_what_is_no_text_in_its_encoding_is_refused_with_the_line(tmp_path):
    text = written(tmp_path, "a,b\n1,x\n2,gr\u00fcn\n".encode("cp1252"))
    refused(text, "line 3 is not UTF-8; with encoding=cp1252 it has gr\u00fcn", "latin-1")
    like = opened(f"{text}?encoding=cp1252").spec
    refused(text, "line 3 is not UTF-8", like=like)
    assert opened(f"{text}?skip=b")[:].x.tolist() == [[1], [2]]
    text = written(tmp_path, b"a,b\n1,x\n2,\x81\n")
    refused(f"{text}?encoding=cp1252", "line 3 is not in encoding=cp1252")
    refused(f"{text}?encoding=ascii", "line 3 is not in encoding=ascii")
    refused(f"{text}?encoding=utf9", "encoding=utf9: there is no such encoding", "cp1252")
    refused(written(tmp_path, TEXT.encode("utf-16-le")), "no text", "encoding=utf-16-le")
    refused(written(tmp_path, b"PK\x03\x04\x14\x00\x06\x00\n"), "holds bytes that are no text")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n\n3,4,5\n", "line 4 has 3 cells, the first (a,b) 2 (delimiter=,)"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cell, the first (a,b) 2"),
        ('a,b\n"x\ny",2\n3,4,\n', "line 4 has 3 cells"),
        ('a,b\n"x,2\n1,2\n3,4\n', "line 2 has a quote that does not end"),
        ('a,b\n1,"2\n' + "1,2\n" * 2**16, "line 2 has a quote that does not end"),
        ('a,b\n1,2\n1,"x\n1,2\n', "line 3 has a quote that does not end"),
        ('a,b\n1,"x\n1,2\n3",4\n5,6\n', "line 2 has 3 cells, the first (a,b) 2; a quote in it"),
        ("# by a tool\na,b\n1,2\n", "line 2 has 2 cells, the first (# by a tool) 1"),
        ("", "is empty"),
        ("\n \n", "is empty"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, text, words):
    refused(written(tmp_path, text), words)


def test_a_line_that_does_not_fit_is_named_in_other_encodings(tmp_path):
    refused(written(tmp_path, "\u00e4,b\n1,2\n3,4,5\n".encode("utf-16")), "line 3 has 3 cells")
    packed = gzip.compress("\u00e4\tb\n1\t2\n3\n".encode())
    refused(written(tmp_path, packed, "rows.tsv.gz"), "line 3 has 1 cell", "delimiter=%09")


def test_a_file_longer_than_what_is_looked_at_first(tmp_path):
    lines = [f"{i},w\u00f6rter {i % 3}\n" for i in range(20_000)]
    for encoding in ("utf-16", "utf-8"):
        source = opened(written(tmp_path, "".join(["a,b\n", *lines]).encode(encoding)))
        np.testing.assert_array_equal(source[:].x[:, 0], np.arange(20_000))
        assert source.spec.shape == (4,)
