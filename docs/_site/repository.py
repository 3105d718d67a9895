"""How do pages of the repository become pages of the site, with links that work in both places?

The repository's own pages outside ``docs`` (README, change log, contribution guide, cards of the shipped models) are
added under the addresses of :data:`PAGES`. Links are written for readers of the repository; here each is resolved in
the repository and rewritten to the site's page, or to a copy of the file it names. What exists nowhere stays as it is,
and MkDocs reports it.
"""

from __future__ import annotations

import os.path
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    **{
        f"fixtures/models/{name}/README.md": f"models/{name}.md"
        for name in sorted(path.parent.name for path in (ROOT / "fixtures" / "models").glob("*/README.md"))
    },
}
_SOURCE = {address: path for path, address in PAGES.items()}
_FENCE = re.compile(r"(^```.*?^```\s*$)", re.MULTILINE | re.DOTALL)
_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")  # of Sphinx, which docstrings use
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside ``docs``."""
    for path, address in PAGES.items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links of a page, except in its examples."""
    address = page.file.src_uri
    folder = posixpath.dirname(_SOURCE.get(address, f"docs/{address}"))

    def rewrite(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        target = PAGES.get(path) or path.removeprefix("docs/")
        if path not in PAGES and not path.startswith("docs/"):
            if path.startswith("..") or not (ROOT / path).is_file():
                return match[0]
            target = f"source/{path}"
            if files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
        start = posixpath.dirname(address) or "."
        return os.path.relpath(target, start).replace(os.sep, "/") + (match[2] or "")

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(rewrite, part) for part in parts)


def on_page_content(html: str, **_: Any) -> str:
    """Show names in docstrings without the roles that Sphinx would need."""
    return _ROLE.sub("", html)
