"""The registry's web page in a real Chromium: what each version is, how good, on what data, why champion."""

import re
from pathlib import Path

from candidates import Populated
from playwright.sync_api import Browser, Locator, Page, expect
from servers import free_port, served

from genreflow import registry
from genreflow.evaluation.gate import Decision

PATIENCE_MS = 120_000
KEPT = Decision(promote=False, verdict="kept", reason="kept version 2: it is not better", numbers={})


def follow(page: Page, link: Locator) -> None:
    """Go where a link of a description leads; MLflow opens these in another tab."""
    page.goto(page.url.partition("#")[0] + str(link.get_attribute("href")), wait_until="domcontentloaded")


def test_the_page_shows_what_each_version_is_its_accuracy_and_why_it_is_champion(
    populated: Populated, browser: Browser, tmp_path: Path
) -> None:
    expect.set_options(timeout=PATIENCE_MS)
    registry.set_champion("1", "there was none")
    registry.set_champion("2", "real music beats synthetic")
    registry.apply_decision("3", KEPT, "2")
    port = free_port()
    argv, environment = registry.ui_command(port)
    address = f"http://127.0.0.1:{port}"
    with (
        served(argv, tmp_path / "ui.log", environment, f"{address}/health"),
        browser.new_page(viewport={"width": 1600, "height": 1400}) as page,
    ):
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}/#/models/{registry.MODEL_NAME}", wait_until="domcontentloaded")
        overview = page.locator("table", has_text="why it is, was, or is not champion")
        expect(overview).to_be_visible()
        rows = overview.locator("tbody tr").all_inner_texts()
        assert [re.sub(r"\s+", " ", row).strip() for row in rows] == [
            "Version 3 @challenger 90.0 % (85.0 to 94.0) gtzan, fault-filtered "
            "kept version 2: it is not better",
            "Version 2 @champion 80.0 % (75.0 to 84.0) gtzan, fault-filtered real music beats synthetic",
            "Version 1 70.0 % (65.0 to 74.0) synthetic music, fault-filtered was champion before version 2; "
            "there was none",
        ]
        page.screenshot(path=str(tmp_path / "model.png"))

        follow(page, overview.get_by_role("link", name="Version 3"))
        expect(page.get_by_role("heading", name="Is it champion?")).to_be_visible()
        text = page.inner_text("body").replace("\u00a0", " ")
        for words in (
            "Accuracy 90.0 % on 290 test clips (95 % interval 85.0 % to 94.0 %)",
            "No. Kept version 2: it is not better.",
            "Data: gtzan: 443 clips to train on, 197 for selection, 290 to test on (1 refused)",
            "Split: fault-filtered, leak-free",
            "@ challenger",
        ):
            assert words in text
        page.screenshot(path=str(tmp_path / "version.png"))

        follow(page, page.get_by_role("link", name="training run"))
        expect(page.get_by_text("gtzan, test split").first).to_be_visible()
        expect(page.get_by_text("test/macro_f1", exact=True).first).to_be_visible()
        page.screenshot(path=str(tmp_path / "run.png"))

        # in a browser that was never here: the experiment opens with its runs, not with pages of GenAI
        with browser.new_context() as fresh:
            listed = fresh.new_page()
            listed.set_default_timeout(PATIENCE_MS)
            listed.goto(registry.training_page(address), wait_until="domcontentloaded")
            expect(listed.get_by_role("heading", name="Runs")).to_be_visible()
            listed.screenshot(path=str(tmp_path / "experiment.png"))
