"""S26: nothing marks a text as safe markup that a user may have written (what the browser makes of it:
tests/browser/test_s26_xss.py)."""

import re
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)
IN_PYTHON = re.compile(r"\bmark_safe\b|\bSafeText\b|SafeString\(|\.html_safe\b|autoescape\s*=\s*False")
IN_TEMPLATES = re.compile(r"\|\s*safe\b|\|\s*safeseq\b|autoescape off|<script>|\son[a-z]+=|javascript:|<style")
INLINE_STYLE = re.compile(r"\sstyle=")  # the admin's policy allows it


def test_no_python_of_ours_marks_text_as_safe():
    files = [path for app in ("jobs", "jobsite", "tokens") for path in (ROOT / app).rglob("*.py")]
    assert len(files) > 100
    assert [str(path) for path in files if IN_PYTHON.search(path.read_text())] == []


def test_no_template_of_ours_turns_escaping_off_or_holds_scripts():
    files = [path for path in (ROOT / "templates").rglob("*") if path.is_file()]
    assert len(files) > 20
    pages = {
        str(path.relative_to(ROOT)): path.read_text() for path in files if path.suffix != ".txt"
    }  # those are mails
    assert [name for name, text in pages.items() if IN_TEMPLATES.search(text)] == []
    ours = {name: text for name, text in pages.items() if not name.startswith("templates/admin/")}
    assert [name for name, text in ours.items() if INLINE_STYLE.search(text)] == []
