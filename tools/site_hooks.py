"""Hooks of MkDocs: the README is the home page, and linked files of the repository are pages too.

Pages link to studies, reports and code by relative paths, which work wherever the repository is
browsed. The site has no repository beside it, so every file that a page links to outside `docs/`
is taken into the site below `source/`: Markdown as a page, code and YAML as a page with a listing,
anything else as it is. Formulas become MathML here, so that reading them needs no script.
"""

import html
import os
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LISTED = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".json": "json"}
"""Languages of files that are shown as a listing, by suffix."""

_LINK = re.compile(
    r"^(?P<fence>````?)\w.*?^(?P=fence)$|\]\((?!\w+:|#)(?P<link>[^)\s#]+)(?=[)\s#])",
    re.DOTALL | re.MULTILINE,
)
"""A relative link; or a block of code, in which there is none."""

_CELL_CODE = re.compile(r"(?<=[ >])`[^`\n]*\\\|[^`\n]*`(?=[ <])")
"""Code in a table whose pipes are escaped, as GitHub wants them and Python-Markdown does not."""

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the home page, and whatever pages link to outside `docs/`."""
    docs = Path(config.docs_dir)
    waiting = [ROOT / "README.md", *sorted(docs.rglob("*.md"))]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        if docs not in path.parents:
            files.append(_added(path, config))
        linked = {_target(path, link) for link in _links(_markdown(path))}
        new = {each for each in linked - known if each.exists() and docs not in each.parents}
        known |= new
        waiting += sorted(new)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where their targets are in the site."""
    docs = Path(config.docs_dir)
    here = _origin(page.file.src_uri, docs)

    def moved(match: re.Match[str]) -> str:
        if match["fence"] or not (target := _target(here, match["link"])).exists():
            return match[0]  # of a link that leads nowhere MkDocs warns
        link = posixpath.relpath(_place(target, docs), posixpath.dirname(page.file.src_uri) or ".")
        return f"]({link}"

    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]
    return _LINK.sub(moved, _CELL_CODE.sub(lambda code: code[0].replace(r"\|", "|"), markdown))


def on_page_content(html_text: str, **_: object) -> str:
    """Make MathML of the formulas."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]).strip(), display=display)

    return _FORMULA.sub(formula, html_text)


def _links(markdown: str) -> list[str]:
    return [match["link"] for match in _LINK.finditer(markdown) if match["link"]]


def _target(page: Path, link: str) -> Path:
    return Path(os.path.normpath(page.parent / link))


def _markdown(path: Path) -> str:
    """The page of `path`: Markdown as it is, a listing of code, the files of a folder."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix in LISTED)
        return "\n".join([f"# {name}\n", *(f"- [{each}]({path.name}/{each})" for each in inside)])
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    if path.suffix in LISTED:
        return f"# {name}\n\n````{LISTED[path.suffix]}\n{path.read_text(encoding='utf-8')}````\n"
    return ""


def _place(path: Path, docs: Path) -> str:
    """Where `path` of the repository is among the sources of the site."""
    if docs in path.parents:
        return path.relative_to(docs).as_posix()
    if path == ROOT / "README.md":
        return "index.md"
    name = f"source/{path.relative_to(ROOT).as_posix()}"
    return f"{name}.md" if path.is_dir() or path.suffix in LISTED else name


def _origin(place: str, docs: Path) -> Path:
    """The inverse of `_place`, for pages."""
    if place == "index.md":
        return ROOT / "README.md"
    if not place.startswith("source/"):
        return docs / place
    path = ROOT / place.removeprefix("source/")
    return path if path.is_file() else path.with_suffix("")


def _added(path: Path, config: MkDocsConfig) -> File:
    place, docs = _place(path, Path(config.docs_dir)), InclusionLevel.NOT_IN_NAV
    if page := _markdown(path):
        return File.generated(config, place, content=page, inclusion=docs)
    return File.generated(config, place, abs_src_path=str(path), inclusion=docs)
