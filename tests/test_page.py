"""The page in a real browser, over a pipeline with all that it has to stand."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.support.bench import PipelineBench
from tests.support.page_service import HTML, KEYS, LONG, NAME, RTL, fails
from tests.support.served import serving
from tests.support.servers import OwnServer

from run_task import Pipeline, RwLock, TimeSeries, TimeUnit, report
from run_task.aggregates import mean
from run_task.observe._web import web_file
from run_task.pipeline._show import SCRIPTS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)

TOKEN = "a-token-of-this-test-which-nobody-guesses"

WIDTHS = (400, 1280, 2500)

PATIENCE = 20_000
"""How many milliseconds what is bound to show is waited for, on a busy machine."""

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install it"),
]

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Generator[OwnServer]:
    """A service, which tests may kill and start again."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    program = [sys.executable, "-m", "tests.support.page_service", "PORT", str(token)]
    server = OwnServer(program)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """One browser for all tests."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS.split())
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, service: OwnServer) -> Generator[Page]:
    """A page of a person's own, which must do nothing that it may not."""
    with opened(browser, service) as page:
        yield page


@contextmanager
def opened(browser: Browser, service: OwnServer) -> Generator[Page]:
    """A page that must do nothing that it may not.

    What counts as such: an error of a script, and whatever the Content-Security-Policy forbids.
    """
    context = browser.new_context(base_url=f"http://127.0.0.1:{service.port}")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if "Policy" in told.text else None)
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    yield page
    assert not wrong
    assert page.title() != "run", "a name was taken for HTML"
    context.close()


def view(page: Page, *parts: str, width: int = 1280) -> None:
    """Open a view."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("about:blank")
    page.goto("/#/" + "/".join(quote(part, safe="") for part in (NAME, *parts)))
    expect(page.locator("#health")).to_have_attribute("data-status", "warning")


def test_overview_tells_health_and_how_it_hangs_together(page: Page) -> None:
    view(page, "overview")
    expect(page.locator("#pipeline-name")).to_have_text(NAME)
    expect(page.locator(".reasons")).to_contain_text("'fails' gives no result")
    expect(page.locator(".alarms")).to_contain_text("rows are there of alarms")
    nodes = page.locator(".graph-node")
    expect(nodes).to_have_count(3 + 3 + 6 + 1)  # sources, data, stages and a sink
    failing = page.locator(".graph-node[data-status=failing]")
    expect(failing).to_contain_text("alarms")
    expect(failing).to_contain_text(re.compile(r"late [\d.]+ [mµ]?s, p99 [\d.]+ [mµ]?s"))
    expect(page.locator(".graph-rate", has_text=" rows/s").first).to_be_attached()
    # What is fed by one series stands in the order in which it was declared.
    of_ticks = [nodes.filter(has_text=f"stage{name}") for name in ("ticks", "alarms", HTML, LONG)]
    tops = [node.evaluate("node => node.offsetTop") for node in of_ticks]
    assert tops == sorted(tops)
    for name in (HTML, RTL, LONG):
        expect(page.get_by_role("row", name=name).get_by_role("link")).to_have_text(name)


VIEWS = (("overview",), ("stage", "ticks"), ("stage", "by device"), ("sources",), ("errors",))


@pytest.mark.parametrize("parts", VIEWS, ids="/".join)
def test_views_fit_narrow_and_wide_windows_light_and_dark(
    page: Page, parts: tuple[str, ...]
) -> None:
    view(page, *parts)
    expect(page.locator("main .panel").first).to_be_visible()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)  # it is laid out anew
        across = page.evaluate("document.documentElement.scrollWidth")
        assert across <= width, f"it is {across} wide in {width}"
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) != light
    page.get_by_label("Theme").select_option("light")
    assert page.evaluate(ground) == light


def test_charts_move_and_are_zoomed_and_paused(page: Page) -> None:
    view(page, "stage", "ticks")
    charts = page.locator(".chart")
    expect(charts).to_have_count(3)  # of the texts, there is nothing to draw
    expect(charts.filter(has_text=LONG).locator(".chart-value")).to_have_text(re.compile(r"\d"))
    rows = page.get_by_role("row", name=LONG).locator("td.number")
    before = rows.inner_text()
    expect(rows).not_to_have_text(before)  # rows go on to come
    page.locator("select", has_text="a chart for each").select_option("all in one chart")
    expect(charts).to_have_count(1)
    expect(charts.locator("li")).to_have_count(3)
    box = charts.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 80, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 60, steps=3)
    page.mouse.up()
    latest = page.get_by_role("button", name="Latest")
    expect(latest).to_be_enabled()  # since it is zoomed
    latest.click()
    expect(latest).to_be_disabled()
    pause = page.get_by_role("button", name="Pause charts")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    drawn = "document.querySelector('.chart canvas').toDataURL()"
    was = page.evaluate(drawn)
    page.wait_for_timeout(700)
    assert page.evaluate(drawn) == was
    pause.click()
    page.wait_for_function(f"was => {drawn} !== was", arg=was)


def test_a_key_is_found_drawn_and_sorted_by_keyboard_alone(page: Page) -> None:
    view(page, "stage", "by device")
    expect(page.locator(".key-tools")).to_contain_text(f"{KEYS:,} keys")
    page.get_by_placeholder("Find a device").focus()
    page.keyboard.type("device-0432")
    expect(page.locator(".key-tools")).to_contain_text(f"10 of {KEYS:,} keys")
    first = page.locator("[role=row][row-index='0']")
    expect(first).to_contain_text("device-04320")
    page.keyboard.press("Tab")  # to the condition
    page.keyboard.press("Tab")  # to the headings
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # keys, the last first
    expect(first).to_contain_text("device-04329")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(first).to_contain_text("drawn")
    expect(page.locator(".chips")).to_contain_text("device-04329")
    drawn = page.get_by_role("img", name=re.compile("celsius_mean.*device-04329"))
    expect(drawn).to_be_visible()
    expect(page.locator(".chart", has_text="celsius_mean")).to_contain_text("4,329")
    search = page.get_by_placeholder("Find a device")
    for name in (HTML, RTL, LONG):
        search.fill(name[:20])
        expect(first).to_contain_text(name)
    # A key without a character is there to be seen and clicked on, too.
    search.fill("")
    expect(page.locator(".key-tools").get_by_role("status")).to_have_text(f"{KEYS:,} keys")
    heading = page.get_by_role("grid").get_by_role("columnheader", name="device")
    heading.click()  # the first comes first again
    expect(heading).to_have_attribute("aria-sort", "none")
    expect(first).to_contain_text("(empty)")
    first.click()
    expect(page.locator(".chips")).to_contain_text("(empty)")
    drawn = page.get_by_role("img", name=re.compile(r"celsius_mean.*\(empty\)"))
    expect(drawn).to_be_visible()


def test_keys_are_found_by_their_results(page: Page) -> None:
    view(page, "stage", "by device")
    tools = page.locator(".key-tools")
    where = page.get_by_label("Only keys where")
    expect(where).to_have_attribute("placeholder", re.compile("celsius_mean > 3"))
    where.fill("celsius_mean >= 9990 and count > 0")
    expect(tools).to_contain_text(f"10 of {KEYS:,} keys")
    first = page.locator("[role=row][row-index='0']")
    page.get_by_placeholder("Find a device").fill("device-0999")
    expect(tools).to_contain_text(f"6 of {KEYS:,} keys")
    expect(first).to_contain_text("device-09990")
    where.fill("celsius > 3")
    fault = page.locator(".key-tools + .error")
    expect(fault).to_contain_text("these are: 'celsius_mean', 'count'")
    expect(where).to_have_attribute("aria-invalid", "true")
    expect(first).to_have_count(0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1500)  # windows come meanwhile, and would be refused as well
    assert not [url for url in asked if "api/keys" in url]
    expect(fault).to_contain_text("these are")
    where.fill("")
    expect(fault).to_be_hidden()
    expect(tools).to_contain_text(f"6 of {KEYS:,} keys")


def test_fates_of_rows_and_what_is_no_row_are_told(page: Page) -> None:
    view(page, "sources")
    row = page.get_by_role("row", name="prices").first
    heads = page.locator("thead").get_by_role("columnheader").all_inner_texts()
    for fate in ("stored", "late", "ahead", "malformed"):
        expect(row.locator("> *").nth(heads.index(fate))).to_have_text(re.compile("[1-9]"))
    still = page.get_by_role("row", name=RTL).first
    expect(still.locator("> *").nth(heads.index("Rows/s"))).to_have_text("0 rows/s")
    expect(still.locator("> *").nth(heads.index("stored"))).to_have_text("1")
    other = page.locator(".chart", has_text="prices: other fates")
    expect(other.locator("li", has_text="malformed")).to_have_count(1)


def test_errors_have_their_traceback(page: Page) -> None:
    view(page, "errors")
    error = page.locator(".errors > li", has_text="ValueError: it fails")
    expect(error).to_have_count(1)
    expect(error).to_contain_text(HTML)
    page.keyboard.press("Tab")
    error.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(error.locator("pre")).to_contain_text("raise ValueError")


def test_a_stage_is_paused_by_who_has_the_token(page: Page) -> None:
    view(page, "stage", LONG)
    pause = page.get_by_role("button", name="Pause stage")
    pause.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type("another")
    page.keyboard.press("Enter")
    expect(page.locator("#login-error")).to_have_text("This is not the token.")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    resume = page.get_by_role("button", name="Resume stage")
    expect(resume).to_have_attribute("aria-pressed", "true")
    resume.click()
    expect(pause).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_a_task_is_paused_alone(page: Page) -> None:
    view(page, "stage", "ticks")
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=HTML))
    pause = row.get_by_role("button", name=f"Pause task {HTML}")
    pause.focus()
    page.keyboard.press("Enter")
    resume = row.get_by_role("button", name=f"Resume task {HTML}")
    expect(resume).to_be_focused()
    expect(row).to_contain_text("paused")
    expect(row).to_have_attribute("data-status", "warning")
    expect(row.locator("td.number")).to_have_text("\N{EN DASH}")
    others = page.get_by_role("rowheader", name="last", exact=True).locator("..")
    expect(others).to_contain_text("well")
    page.goto(page.url.partition("#")[0] + "#/" + quote(NAME, safe="") + "/overview")
    stage = page.get_by_role("row").filter(has=page.get_by_role("link", name="ticks", exact=True))
    expect(stage).to_contain_text("tasks paused")
    view(page, "stage", "ticks")
    resume.click()
    expect(row).to_contain_text("well")
    # The only task of a stage is not paused, and the page says why.
    view(page, "stage", LONG)
    only = page.get_by_role("button", name="Pause task last")
    expect(only).to_have_attribute("aria-disabled", "true")
    only.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Task last cannot be paused: no other task is run")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_where_looking_needs_the_token_it_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    bench = PipelineBench([fails])
    bench.stage("any", RwLock[object](object()))
    with serving(bench.pipeline, token_file=token, names=["page.example"]) as served:
        context = browser.new_context(base_url=served.service.url)
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_label("Token")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#connection")).to_contain_text("log in with the token")
        page.get_by_role("button", name="Log in").click()
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#pipeline-name")).to_have_text("bench")
        expect(page.locator("#connection")).to_be_hidden()
        expect(page.locator(".graph-node.is-stage")).to_contain_text("any")
        context.close()


def test_the_page_says_that_the_service_is_gone_and_goes_on_when_it_is_back(
    page: Page, service: OwnServer
) -> None:
    view(page, "stage", "ticks")
    expect(page.locator(".chart").first).to_be_visible()
    service.kill()
    banner = page.locator("#connection")
    expect(banner).to_contain_text("does not answer")
    expect(page.locator("#health")).to_have_text(re.compile("Not known"))
    page.get_by_role("link", name="Overview").click()
    reasons = page.locator(".reasons")
    expect(reasons).to_have_text("The service does not answer.")
    service.start()
    expect(banner).to_be_hidden()
    expect(reasons).not_to_contain_text("does not answer")
    page.go_back()
    expect(page.get_by_role("log")).to_contain_text("The pipeline was started again.")
    expect(page.locator("#health")).to_have_text(re.compile("Warning"))
    rows = page.get_by_role("row", name=LONG).locator("td.number")
    before = rows.inner_text()
    expect(rows).not_to_have_text(before)


def test_it_reads_as_headings_landmarks_and_tables(page: Page) -> None:
    view(page, "overview")
    expect(page.get_by_role("banner")).to_have_count(1)
    expect(page.get_by_role("navigation", name="Views")).to_have_count(1)
    expect(page.get_by_role("main")).to_have_count(1)
    for title in ("Health", "Alarms", "Pipeline", "Stages", "Checkpoints"):
        expect(page.get_by_role("region", name=title, exact=True)).to_be_visible()
    expect(page.get_by_role("table", name="Stages")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_nothing_is_asked_of_anybody_else(browser: Browser, service: OwnServer) -> None:
    own = f"http://127.0.0.1:{service.port}/"
    context = browser.new_context(base_url=own)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    view(page, "stage", "by device")
    row = page.locator("[role=row][row-index='1']")
    expect(row).to_contain_text(HTML)  # it is sorted by key
    row.click()
    expect(page.locator(".chart").first).to_be_visible()
    foreign = [url for url in asked if not url.startswith((own, "data:"))]
    assert len(asked) > 20
    assert not foreign
    context.close()


def test_shards_are_told_of_also_while_one_is_killed(browser: Browser) -> None:
    server = OwnServer([sys.executable, "-m", "tests.support.sharded_service", "PORT", "3"])
    try:
        server.start()
        with opened(browser, server) as page:
            page.goto("/")
            link = page.get_by_role("navigation", name="Views").get_by_role("link", name="Shards")
            link.focus()
            page.keyboard.press("Enter")
            expect(link).to_have_attribute("aria-current", "page")
            table = page.get_by_role("table", name="Shards")
            heads = table.get_by_role("columnheader").all_inner_texts()
            row = table.get_by_role("row", name="shard 1 of 3")
            cell = {head: row.locator("> *").nth(number) for number, head in enumerate(heads)}
            expect(cell["State"]).to_have_text("● running", timeout=60_000)  # of a busy machine
            expect(cell["Keys"]).to_have_text(re.compile("[1-9]"))
            expect(cell["Results"]).to_have_text(re.compile(r"\d{3}"))
            facts = page.locator(".facts")
            expect(facts).to_contain_text("3 of 3")
            nodes = page.get_by_role("table", name="Nodes").get_by_role("row")
            expect(nodes).to_have_count(2)  # the headings, and this machine
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(100)  # it is laid out anew
                assert page.evaluate("document.documentElement.scrollWidth") <= width
            process = cell["Process"].inner_text()
            os.kill(int(process), signal.SIGSTOP)
            wrong = page.get_by_role("region", name="What is wrong")
            expect(wrong).to_contain_text("shard 1 of 3: on ")
            expect(wrong).to_contain_text(f"its process {process} was stopped")
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                told = wrong.get_by_role("listitem")
                assert told.evaluate("item => item.scrollWidth <= item.clientWidth")
                expect(told).to_be_in_viewport(ratio=1)
                assert row.evaluate("row => row.offsetHeight") < 60
            os.kill(int(process), signal.SIGCONT)
            expect(wrong).to_be_hidden()
            os.kill(int(process), signal.SIGKILL)
            expect(cell["Restarts"]).to_have_text("1", timeout=60_000)
            expect(cell["State"]).to_have_text("● running")
            expect(cell["Process"]).not_to_have_text(process)
            # It is told of also where it went and came back between two messages of the service.
            log = page.get_by_role("log")
            expect(log).to_contain_text(
                re.compile("shard 1 of 3: (coming back.*running|running again)")
            )
            windows = cell["Windows"].inner_text()
            expect(cell["Windows"]).not_to_have_text(windows)  # it goes on
            page.get_by_label("Find a shard or a node").fill("shard 2")
            expect(table.get_by_role("row")).to_have_count(2)
            page.get_by_role("link", name="Overview").click()
            expect(facts).to_contain_text("3 on 1 node")
    finally:
        server.kill()


def test_a_pipeline_without_shards_has_no_view_of_them(page: Page) -> None:
    view(page, "overview")
    links = page.get_by_role("navigation", name="Views").get_by_role("link")
    expect(links).to_have_count(3)
    expect(links.filter(has_text="Shards")).to_have_count(0)


def test_a_report_is_drawn_from_its_file_alone(browser: Browser, tmp_path: Path) -> None:
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    rows = [(i, {"price": float(i % 50)}) for i in range(600)]
    pipeline = Pipeline("p").source(rows, into=series)
    pipeline.stage(HTML, [mean("price"), fails], series, "1m")
    file = tmp_path / "report.html"
    report(pipeline.replay(), title=HTML).save(file)
    context = browser.new_context(viewport={"width": 400, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text(HTML)
    drawn = page.get_by_role(
        "img", name=re.compile("^price_mean, over 540 seconds.* from 21.167 to")
    )
    expect(drawn.locator("canvas")).to_be_visible()
    expect(page.locator("details")).to_contain_text("ValueError: it fails")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert asked == [file.as_uri()]
    assert not wrong
    context.close()


def test_the_widget_of_notebooks_draws_what_it_is_told(browser: Browser) -> None:
    module = "\n".join(web_file(name).decode() for name in SCRIPTS)
    column = [float(i % 9) for i in range(50)]
    chart = {"title": HTML, "names": [HTML], "columns": [column]}
    stage = {"name": RTL, "about": "about", "times": list(range(50)), "charts": [chart]}
    told = {"name": HTML, "state": "runs", "stages": [stage]}
    context = browser.new_context()
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_content("<body><div id=el style='color: white; width: 600px'></div>")
    page.evaluate(
        """async ([module, told]) => {
            const url = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
            const model = { get: () => told, on: (_, again) => (window.again = again), off() {} };
            const el = document.getElementById("el");
            window.leave = (await import(url)).default.render({ model, el });
            window.told = told;
        }""",
        [module, told],
    )
    drawn = page.get_by_role("img", name=re.compile("last 4, from 0 to 8"))
    expect(drawn.locator("canvas")).to_be_visible()
    expect(page.locator(".run-task-show")).to_have_attribute("data-theme", "dark")
    expect(page.locator(".show-title")).to_have_text(f"{HTML}: runs")
    page.evaluate(
        "told.stages[0].times.push(50); told.stages[0].charts[0].columns[0].push(77); again()"
    )
    expect(page.locator(".chart-value")).to_have_text("77")
    page.evaluate("leave()")
    assert page.locator(".chart").count() == 0
    assert not wrong
    context.close()
