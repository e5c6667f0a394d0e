"""The files of the page: what is served, and that it is what it is said to be."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest
from tests.support.bench import PipelineBench
from tests.support.served import serving

from run_task import RwLock, task
from run_task.observe._web import WEB_FILES, web_file
from run_task.serve._page import CSP, page

PUBLISHED = {
    "ag-grid-community.min.noStyle.js": "3b05777f78aa10b6d7fd020bc2076936b889e5a0",
    "ag-grid.min.css": "f1cab681a9157b54dc8124e3add01c0189c9f20c",
    "ag-theme-quartz-no-font.min.css": "d8a81f37f3f2f9a93cfbcfd715c415a8c190e19d",
    "agGridQuartzFont.min.css": "e48084352fc7b6ff9d0bb453c467e7ec200647c9",
    "dagre.min.js": "54a503e346f93ca0bb10abe7999587e037262935",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ff",
}
"""How the SHA-256 of files begins that others have published: ag-grid-community 36.2.0,
@dagrejs/dagre 3.1.3 and uplot 1.6.32. CONTRIBUTING tells how they are brought up to date."""

SERVED = [str(getattr(route, "path")) for route in page()]  # noqa: B009  BaseRoute has none


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


def own() -> dict[str, str]:
    """The texts that were written here, by the names under which they are served."""
    folder = files("run_task.serve").joinpath("page")
    found = {path.name: path.read_text("utf-8") for path in folder.iterdir() if not path.is_dir()}
    shared = [name for name in WEB_FILES if name not in PUBLISHED]
    return {**found, **{name: web_file(name).decode() for name in shared}}


def test_every_file_is_served_with_a_policy_once_and_compressed() -> None:
    bench = PipelineBench([end_of])
    bench.stage("any", RwLock[object](object()))
    with serving(bench.pipeline) as served:
        for path in SERVED:
            plain = served.ask(path)
            assert plain.status == 200, path
            assert plain.headers["content-security-policy"] == CSP
            assert plain.headers["x-content-type-options"] == "nosniff"
            tag = plain.headers["etag"]
            assert served.ask(path, if_none_match=tag).status == 304
            packed = served.ask(path, accept_encoding="gzip")
            assert gzip.decompress(packed.body) == plain.body
        for path in ("/page/main.js", "/../pyproject.toml", "/vendor/dagre.min.js", "/index.html"):
            assert served.ask(path).status == 404


def test_the_page_can_ask_for_the_token_where_looking_needs_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-this-test-which-nobody-guesses")
    token.chmod(0o600)
    bench = PipelineBench([end_of])
    bench.stage("any", RwLock[object](object()))
    with serving(bench.pipeline, token_file=token, names=["page.example"]) as served:
        assert served.ask("/api/pipelines").status == 401
        assert {path: served.ask(path).status for path in SERVED} == dict.fromkeys(SERVED, 200)


def test_files_refer_to_files_that_are_served_and_to_nothing_else() -> None:
    referred = {
        name
        for text in own().values()
        for name in re.findall(r'(?:from|src=|href=)\s*"(?:\./)?([^"#]+)"', text)
    }
    assert {f"/{name}" for name in referred} <= set(SERVED)
    not_of_the_page = {"index.html", "report.css", "report.js", "show.css", "show.js"}
    assert {f"/{name}" for name in own() if name not in not_of_the_page} <= set(SERVED)
    for name, text in own().items():
        # What a namespace is called is no address that anything is loaded from.
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.]+\.\w+", text), name


def test_no_text_is_ever_taken_for_html_or_for_a_script() -> None:
    for name, text in own().items():
        for unsafe in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
            assert unsafe not in text, name
        assert not re.search(r"<script(?![^>]* src=)", text), name
        assert name.endswith(".svg") or not re.search(r"\s(?:style|on\w+)=\"", text), name


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_of_others_are_as_they_were_published(name: str) -> None:
    folder = files("run_task.serve").joinpath("page", "vendor")
    content = web_file(name) if name in WEB_FILES else folder.joinpath(name).read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith(PUBLISHED[name])


def test_no_other_file_of_the_package_is_read() -> None:
    with pytest.raises(KeyError):
        web_file("../_web.py")
