"""Tables that lose nothing."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dicomnode.cli.tables import print_markdown, print_table, shared_out

COLUMNS = ["name", "golden cases", "engine"]
ROWS = [["spleen-ct-segmentation", "none", "auto fp32"], ["views", "passed", "[bold] openvino bf16"]]


def printed(width: int, *, terminal: bool = True) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    print_table(console, "Models", COLUMNS, ROWS)
    return file.getvalue()


@pytest.mark.parametrize("width", [48, 56, 64, 80])
def test_a_narrow_screen_breaks_no_word(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    for word in " ".join([*COLUMNS, *(cell for row in ROWS for cell in row)]).split():
        assert word in text


def test_lines_go_before_texts_are_broken() -> None:
    wide, narrow = printed(80), printed(60)
    assert "┃" in wide
    assert "┃" not in narrow
    assert any("spleen-ct-segmentation" in line and "auto fp32" in line for line in narrow.splitlines())


def test_in_a_pipe_a_table_is_as_wide_as_it_needs_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = printed(20, terminal=False).splitlines()
    assert any("spleen-ct-segmentation" in line and "auto fp32" in line for line in lines)
    monkeypatch.setenv("COLUMNS", "20")
    assert max(map(len, printed(20, terminal=False).splitlines())) <= 20


@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(0, 80)), min_size=1, max_size=8),
    st.integers(8, 300),
)
def test_widths_stay_within_their_room_and_use_it(columns: list[tuple[int, int]], room: int) -> None:
    words = [word for word, _ in columns]
    texts = [word + more for word, more in columns]
    widths = shared_out(texts, words, room)
    assert sum(widths) <= room
    assert all(1 <= wide <= text for wide, text in zip(widths, texts, strict=True))
    if sum(words) <= room:
        assert all(wide >= word for wide, word in zip(widths, words, strict=True))
    if sum(texts) <= room:
        assert widths == texts


def test_a_long_word_in_a_cell_of_markdown_is_there_to_its_end() -> None:
    file, digest = io.StringIO(), "0123456789abcdef" * 4
    console = Console(file=file, width=50, force_terminal=True, color_system=None)
    print_markdown(console, f"| what | it is |\n|---|---|\n| digest | {digest} |\n")
    assert "…" not in file.getvalue()
    assert digest[-16:] in file.getvalue()
