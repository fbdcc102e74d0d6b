"""Files of exports and their links: what is written can be read, and a link says one thing alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.api.export_files import PIECE_BYTES, FileWriter, Format, Rows, unpack
from streams.api.export_links import file_link, is_genuine, signature

rows = st.lists(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=8)), max_size=5)


def written(format_: Format, header: bytes, batches: list[Rows]) -> tuple[bytes, FileWriter]:
    file = FileWriter(format_, header)
    pieces = [piece for batch in batches for piece in file.add(batch)]
    pieces += file.finish()
    return b"".join(unpack(piece) for piece in pieces), file


@given(st.lists(rows, max_size=5))
def test_json_is_the_rows(batches: list[list[dict[str, int | str]]]) -> None:
    """However the rows come, the file is one array of them, and the manifest's numbers are its."""
    given_rows = [Rows(len(each), ",".join(map(json.dumps, each)).encode()) for each in batches]
    body, file = written("json", b"", given_rows)
    assert json.loads(body) == [row for each in batches for row in each]
    assert (file.rows, file.size) == (sum(map(len, batches)), len(body))
    assert file.sha256 == hashlib.sha256(body).hexdigest()


def test_csv_is_header_and_rows() -> None:
    """A file without rows has its header too."""
    batches = [Rows(1, b"1,2\r\n"), Rows(0, b""), Rows(2, b"3,4\r\n5,6\r\n")]
    assert written("csv", b"a,b\r\n", batches)[0] == b"a,b\r\n1,2\r\n3,4\r\n5,6\r\n"
    assert written("csv", b"a,b\r\n", [])[0] == b"a,b\r\n"


def test_pieces_come_while_rows_do() -> None:
    """A long file never lies whole in memory."""
    file = FileWriter("csv", b"")
    pieces = [piece for _ in range(20) for piece in file.add(Rows(100, b"x" * 100_000))]
    assert len(pieces) == 20 * 100_000 // PIECE_BYTES
    assert {len(unpack(piece)) for piece in pieces} == {PIECE_BYTES}


@pytest.mark.parametrize(
    "changed",
    [
        {"key": b"other"},
        {"tenant": "zebra"},
        {"job": "job2"},
        {"expires": 1795258801},
        {"given": ""},
        {"given": "é"},
    ],
    ids=str,
)
def test_a_link_is_of_one_tenant_job_and_time(changed: dict[str, Any]) -> None:
    """Whatever is changed, the signature no longer holds."""
    link: dict[str, Any] = {"key": b"key", "tenant": "acme", "job": "job1", "expires": 1795258800}
    sign = signature(**link)
    assert file_link(**link) == f"/v1/exports/job1/file?expires=1795258800&signature={sign}"
    assert is_genuine(**link, given=sign)
    assert not is_genuine(**{**link, "given": sign, **changed})
