"""The live page in Chromium, while requests pass through the whole loop."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from lab.loop.live_figures import LiveFigures
from lab.loop.stack import MODEL, StackConfig
from simulator.load.replay import replay
from simulator.trace import TraceRequest
from simulator.workload import plan
from tests.background import in_background
from tests.browser.conftest import MANY, Watched
from tests.epp.process import PickerProcess
from tests.live import PATIENCE_S

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("browser")]

PATIENCE_MS = 1000 * PATIENCE_S
expect.set_options(timeout=PATIENCE_MS)
TABS = ("now", "ask", "decisions", "models", "compare")
# Nodes of the page that an update of the pool may touch: the rows in view, whatever the size of the pool.
MOST_TOUCHED = 600
DECISIONS = "[aria-label='Newest decisions'] tbody tr"


async def requests(config: StackConfig, count: int, salt: str, rate: float = 40.0) -> None:
    """Send requests with objectives through Envoy, so that prediction routes them as soon as there are models."""
    planned = plan([TraceRequest(i / rate, 200 + 37 * (i % 20), 20) for i in range(count)], seed=1, salt=salt)
    outcomes = await replay(config.gateway_url, planned, model=MODEL, headers={"x-prediction-based-scheduling": "true"})
    assert {outcome.error for outcome in outcomes} == {None}


@asynccontextmanager
async def traffic(config: StackConfig) -> AsyncIterator[None]:
    """Send requests while a test looks at the page."""

    async def send() -> None:
        for number in range(10_000):
            await requests(config, 20, f"traffic {number}", rate=20.0)

    async with in_background(send()):
        yield


@asynccontextmanager
async def opened(browser: Browser, url: str, tab: str = "now", **settings: object) -> AsyncIterator[Page]:
    """Open the page. At the end, check that nothing was complained of, and that nothing was asked of other hosts."""
    context = await browser.new_context(**settings)  # type: ignore[arg-type]
    watched = Watched(await context.new_page())
    watched.watch(url)
    watched.page.set_default_timeout(PATIENCE_MS)
    try:
        await watched.page.goto(f"{url}/live/#{tab}")
        await expect(watched.page.locator("#connection")).to_have_text("live")
        yield watched.page
        assert watched.complaints == []
        assert watched.elsewhere == []
    finally:
        await context.close()


async def number_in(page: Page, selector: str) -> float:
    found = re.search(r"[\d,.]+", (await page.locator(selector).text_content()) or "")
    assert found
    return float(found[0].replace(",", ""))


async def test_numbers_move_while_requests_pass(browser: Browser, loop: StackConfig) -> None:
    async with opened(browser, loop.picker_url) as page, traffic(loop):
        await expect(page.locator("#summary")).to_contain_text("3 endpoints")
        await expect(page.locator("#summary")).not_to_contain_text(" 0 requests in flight")
        rates = page.get_by_role("img", name=re.compile(r"Requests a second; newest: ended [1-9]"))
        await expect(rates).to_be_visible(timeout=PATIENCE_MS)
        row = page.locator(".pool tbody tr:not(.gap)", has_text="slow-2")
        await expect(row).to_be_visible()
        seen = await row.inner_text()
        await page.wait_for_function(
            "seen => ![...document.querySelectorAll('.pool tr')].some(row => row.innerText === seen)", arg=seen
        )


async def test_a_slider_changes_a_prediction(browser: Browser, loop: StackConfig) -> None:
    async with opened(browser, loop.picker_url, "ask") as page, traffic(loop):
        # The first models come after some requests.
        await page.wait_for_function(
            """() => {
                document.querySelector("#ask-input_tokens").dispatchEvent(new Event("input"));
                return document.querySelector("#view-ask tbody")?.innerText.includes(" to ");
            }""",
            polling=1000,
        )
        slider = page.get_by_role("slider", name="Prompt")
        await slider.focus()
        await page.keyboard.press("Home")
        await expect(page.locator("#ask-input_tokens")).to_have_attribute("aria-valuetext", "1 tokens")
        chosen = "#view-ask tr.chosen td:nth-of-type(5)"
        short = await page.locator(chosen).inner_text()
        await page.keyboard.press("End")
        await expect(page.locator("#ask-input_tokens")).to_have_attribute("aria-valuetext", "131,072 tokens")
        await expect(page.locator(chosen)).not_to_have_text(short)
        # Seconds instead of milliseconds, and later than the objective.
        await expect(page.locator(chosen)).to_contain_text("s (late)")
        await expect(page.locator("#ask-choice")).to_contain_text("would be picked, by profile slo")


async def test_a_decision_is_explained_and_another_weight_changes_it(browser: Browser, loop: StackConfig) -> None:
    await requests(loop, 40, "to be explained", rate=60.0)
    async with opened(browser, loop.picker_url, "decisions") as page:
        await expect(page.locator(DECISIONS).nth(20)).to_be_visible()
        changed = False
        for number in range(20):
            await page.locator(DECISIONS).nth(number).get_by_role("button").click()
            detail = page.get_by_role("region", name="The decision", exact=True)
            await expect(detail).to_contain_text("It went to")
            await expect(detail).to_contain_text("within the objective")
            for scorer in await detail.get_by_label(re.compile("^weight of ")).all():
                await scorer.fill("0")
            await detail.get_by_role("button", name="Decide again").click()
            choice = page.locator(".what-if-choice")
            await expect(choice).to_contain_text("It would have gone to")
            changed = "instead of" in await choice.inner_text()
            if changed:
                break
        assert changed, "without weights every endpoint is as good, so some requests would have gone elsewhere"


async def test_models_are_shown_with_what_they_look_at(browser: Browser, loop: StackConfig) -> None:
    await requests(loop, 100, "to be learnt")
    async with opened(browser, loop.picker_url, "models") as page, traffic(loop):
        await expect(page.locator("#view-models")).to_contain_text(re.compile(r"Generation \d+, published"))
        await expect(page.locator("#view-models")).to_contain_text("input_token_length")
        await expect(page.locator("#view-models")).to_contain_text("published")
        await expect(page.locator("svg.scatter circle").nth(20)).to_be_attached(timeout=PATIENCE_MS)


async def test_policies_are_compared_while_they_run(browser: Browser, loop: StackConfig) -> None:
    async with opened(browser, loop.picker_url, "compare") as page:
        await expect(page.locator("[aria-label=Policies] tbody tr")).to_have_count(3)
        comparison = LiveFigures(loop.folder / "comparison.json", ("default", "slo"))
        comparison.begin("default")
        comparison.end()
        await expect(page.locator("[aria-label=Policies] tbody tr")).to_have_count(2)
        await expect(page.locator("#view-compare")).to_contain_text("ended")


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 390)], ids=["light on a desk", "dark on a phone"]
)
async def test_no_view_has_a_serious_fault_of_accessibility(
    browser: Browser, loop: StackConfig, screenshots: Path | None, scheme: str, width: int
) -> None:
    await requests(loop, 40, f"{scheme} {width}")
    viewport = {"width": width, "height": 860}
    async with opened(browser, loop.picker_url, viewport=viewport, color_scheme=scheme) as page:
        for tab in TABS:
            await page.locator(f"#tab-{tab}").click()
            await expect(page.locator(f"#view-{tab}")).to_be_visible()
            if tab == "decisions":
                await page.locator(DECISIONS).first.get_by_role("button").click()
                await expect(page.get_by_role("region", name="The decision", exact=True)).to_be_visible()
            if tab in ("ask", "models"):
                await expect(page.locator(f"#view-{tab} tbody tr").first).to_be_visible()
            # The view fades in, and is too faint meanwhile.
            await page.wait_for_function("() => document.getAnimations().every(one => one.playState !== 'running')")
            found = await Axe().run(page, options={"resultTypes": ["violations"]})
            serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
            assert [(one["id"], one["nodes"][0]["html"]) for one in serious] == [], tab
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, (
                f"{tab} is wider than the screen"
            )
            if screenshots and width > 1000:
                await page.screenshot(path=screenshots / f"live-{tab}.png")


async def test_tabs_are_moved_by_the_keyboard(browser: Browser, loop: StackConfig) -> None:
    async with opened(browser, loop.picker_url) as page:
        await page.locator("#tab-now").focus()
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator("#tab-compare")).to_be_focused()
        await expect(page.locator("#view-compare")).to_be_visible()
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#view-now")).to_be_visible()


async def test_a_thousand_endpoints_cost_no_more_than_a_screenful(browser: Browser, large_pool: PickerProcess) -> None:
    async with opened(browser, large_pool.url) as page:
        await expect(page.locator("#summary")).to_contain_text(f"{MANY:,} endpoints")
        rows = page.locator(".pool tbody tr:not(.gap)")
        await expect(rows.first).to_contain_text("server-0000")
        assert await rows.count() < 60
        await page.evaluate(
            """() => {
                window.touched = [];
                new MutationObserver((changes) => window.touched.push(changes.length))
                    .observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
            }"""
        )
        await page.locator(".pool").evaluate("pool => { pool.scrollTop = pool.scrollHeight }")
        await expect(rows.last).to_contain_text(f"server-{MANY - 1:04d}")
        assert await rows.count() < 60
        # Some updates of the pool.
        await page.wait_for_function("() => window.touched.length >= 4")
        touched = await page.evaluate("window.touched")
        assert max(touched) < MOST_TOUCHED, touched
        await page.get_by_role("searchbox", name="Show endpoints").fill("server-05")
        await expect(rows.first).to_contain_text("server-05")
        await expect(page.locator("#view-now")).to_contain_text(f"100 of {MANY:,}")
        assert await number_in(page, "#summary") == MANY
