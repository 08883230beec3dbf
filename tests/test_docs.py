"""The documents: every ```python block runs, in order, as one program per document.

A block that is not to be run is marked ```py, one that is not Python ```text or ```bash.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house_rules import ROOT

DOCUMENTS = sorted(path.name for path in ROOT.glob("*.md"))
PLACE = re.compile(r"`([\w./-]+(?:\.\w+|/))`")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)[^)]*\)")


def program(text: str) -> str:
    """The Python of a document; other lines are empty, so that errors name the document's own lines."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside and line.rstrip() == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def test_a_program_keeps_its_line_numbers() -> None:
    assert (
        program("Say\n```python\na = 1\n```\nso\n```bash\nls\n```\n```python\nb\n```") == "\n\na = 1\n\n\n\n\n\n\nb\n\n"
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_examples_of_a_document_run(name: str, tmp_path: Path) -> None:
    code = program((ROOT / name).read_text(encoding="utf-8"))
    if not code.strip():
        return
    script = tmp_path / name.replace(".md", "_md.py")
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{name}\n{done.stderr}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (ROOT / link).exists()] == []


def test_the_table_of_contributing_names_files_that_exist() -> None:
    rows = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    places = [place for row in rows for place in PLACE.findall(row.split("|")[2])]
    assert len(places) > 20
    assert [place for place in places if not (ROOT / place).exists()] == []
