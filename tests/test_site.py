"""The rendered site: fetches nothing, shows what is there, escapes what came from data, and
looks right in a browser.
"""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from conftest import OUTPUTS, plan_of
from pretune import paths
from pretune.analysis import display
from pretune.analysis.claims import VERDICTS
from pretune.analysis.display import quote
from pretune.report import execution, pages, site
from pretune.study.load import load_study, resolved

CHROMIUM = shutil.which("chromium")
SCRIPT = "<script>alert(1)</script> <img src=x onerror=alert(2)> [a](javascript:b) ‮gnp"


class Links(HTMLParser):
    """Everything a page refers to, its text, its figures."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.links, self.tags, self.labels = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.sources += [
            given[key] for key in ("src", "srcset", "data", "poster") if given.get(key)
        ]
        self.links += [given["href"]] if given.get("href") else []
        self.labels += [given.get("aria-label")] if given.get("role") == "img" else []


@pytest.fixture(scope="module")
def files(smoke):
    return sorted((paths.study_folder(smoke.name) / "site").glob("*.html"))


@pytest.fixture(scope="module")
def finding_files(files):
    return [file for file in files if file.stem != "index"]


def test_a_page_for_all_one_a_checkpoint_and_the_overview(files, smoke):
    names = [
        finding + end
        for finding in smoke.findings
        for end in ("", *(f".step-{step}" for step in (0, 20, 36, 38, 40)))
    ]
    assert sorted(file.stem for file in files) == sorted([*names, "index"])


def test_nothing_is_fetched_and_links_resolve(files):
    for file in files:
        text = file.read_text()
        page = Links(text)
        assert not page.sources and "script" not in page.tags and "link" not in page.tags
        # of vocabularies, not places
        names = r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)"
        assert not re.search(r"@import|url\((?!#)|" + names, text)
        for link in page.links:
            assert link.startswith("#") or (file.parent / link).exists(), link


def test_code_is_folded_but_there_and_figures_have_a_text(finding_files):
    for file in finding_files:
        text, page = file.read_text(), Links(file.read_text())
        assert text.count('<div class="code">') >= 8 and 'id="codes"' in text
        assert "open_results" in re.sub("<[^>]+>", "", text)
        assert len(page.labels) == text.count("<figcaption>")
        assert all(label and len(label) > 30 for label in page.labels)


def test_every_page_tells_its_answer_and_no_machine(finding_files, smoke):
    for file in finding_files:
        text = file.read_text()
        assert "Answer" in text and str(paths.ROOT) not in text and "Traceback" not in text
        if ".step-" not in file.name:
            number = file.name[1]
            assert f"Claim {number}a" in text and (
                "provisional: fewer than three seeds" in text or "not asked" in text
            )
            assert "adjusted by Holm" in text and "sharpened on 2026-11-24" in text


def test_the_answer_stands_before_the_question_and_the_rule_before_the_data(finding_files):
    """Verdicts, what they mean and the figure that shows them come first on a page."""
    for file in (one for one in finding_files if ".step-" not in one.name):
        text = file.read_text()
        places = [
            text.index(words)
            for words in (
                '<section class="answers">',
                "<h2>The question",
                "<h2>The claims, and the rules that judge them",
                "<h2>What was measured",
                "<h2>Change this",
            )
        ]
        assert places == sorted(places)
        box = text[places[0] : places[1]]
        assert f"{file.name[1]}a" in box and "5 checkpoints up to 40,960 tokens" in box


def test_a_row_of_a_table_can_become_a_card(finding_files):
    """Each cell names its column, tags apart."""
    for file in finding_files:
        cells = re.findall(r"<td[^>]*>", file.read_text())
        assert len(cells) > 10 and all('data-label="' in cell for cell in cells)


def test_the_site_takes_a_picture_apart_and_shows_all_of_it():
    """JupyterLab shows the picture as it is; the site lays out its panels, of any number."""
    panels = [f'<svg width="{100 + i}pt" height="50pt"><text>{i}</text></svg>' for i in range(5)]
    picture = display.sheet("Five <panels>", panels, '<svg width="9pt" height="5pt">of</svg>')
    assert display.parts_of(picture, "panel") == panels
    assert display.parts_of(picture, "legend") == ['<svg width="9pt" height="5pt">of</svg>']
    about = {"title": "Five <panels>", "alt": "No <script>", "numbers": "<p>1</p>"}
    shown = site.as_figure({"image/svg+xml": picture, display.FIGURE: about})
    assert all(f"<text>{i}</text>" in shown for i in range(5)) and "<p>1</p>" in shown
    assert "Five &lt;panels&gt;" in shown and "No &lt;script&gt;" in shown
    assert site.as_figure({"image/svg+xml": picture}) == f"<figure>{picture}</figure>"


def test_the_overview_has_a_line_for_every_claim_and_links_to_its_page(smoke):
    text = (paths.study_folder(smoke.name) / "site" / "index.html").read_text()
    for claim in (
        "1a",
        "1b",
        "2a",
        "2b",
        "2c",
        "3a (io)",
        "3b (instruct)",
        "4a",
        "4b",
        "4c",
        "5a (XSum)",
        "5b",
        "5c",
    ):
        assert f"<th>{claim}</th>" in text, claim
    assert 'href="05_domain_forgetting.html"' in text and "-61.4 %" in text
    # 1a of the released tables, which have one seed
    assert "▲&nbsp;supported, provisional" in text.replace("\xa0", "&nbsp;")
    kept = json.loads((paths.study_folder(smoke.name) / "findings.json").read_text())
    assert {line["finding"] for line in kept} == set(smoke.findings)
    assert all(
        line["verdict"] in VERDICTS and line["why"] and "Holm" in line["rule"] for line in kept
    )
    for line in (one for one in kept if one["p_holm"] is not None):
        assert line["smallest_decidable"] > line["margin"] and 0 < line["p_holm"] <= 0.5


def test_text_from_data_is_escaped(tmp_path, smoke, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    page = pages.Page("01_dataset_dichotomy", "all")
    copy = pages.executed(smoke, page)
    copy.parent.mkdir(parents=True)
    cell = nbformat.v4.new_code_cell(
        "1",
        outputs=[
            nbformat.v4.new_output("display_data", {"text/markdown": f"It said {quote(SCRIPT)}."}),
            nbformat.v4.new_output("display_data", {"text/plain": SCRIPT}),
            nbformat.v4.new_output("stream", name="stdout", text=SCRIPT),
        ],
    )
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell(f"# Title {quote(SCRIPT)}"), cell]
        ),
        copy,
    )
    [file] = site.render("Smoke", {page: copy}, tmp_path / "site")
    found = Links(file.read_text())
    assert "script" not in found.tags and "img" not in found.tags
    assert not [link for link in found.links if link.startswith("javascript")]
    assert file.read_text().count("&lt;script&gt;") >= 3


@pytest.mark.parametrize(
    "text",
    [
        "x" * 2**20,
        "\u05e9\u05dc\u05d5\u05dd \u202e gnp",
        "a\x00b\x1b[31m",
        "\ud800",
        "**b** $x$ |c| `d`",
    ],
)
def test_any_text_from_data_is_quoted_short_and_harmless(text):
    shown = quote(text)
    assert (
        len(shown) < 4000
        and shown.encode("utf-8")
        and not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff*`$|]", shown)
    )


def test_only_what_changed_is_written_and_leftovers_go(smoke, files):
    folder = files[0].parent
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    (folder / "old.html").write_text("old")
    made = pages.pages(plan_of(smoke))
    files[1].unlink()
    site.render(smoke.title, {page: pages.executed(smoke, page) for page in made}, folder)
    assert not (folder / "old.html").exists()
    assert files[1].read_bytes() == before[files[1]][1]  # byte for byte
    assert all(file.stat().st_mtime_ns == before[file][0] for file in files if file != files[1])


WATCH = (Path(__file__).parent / "watch.js").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("width", "dark"), [(390, False), (900, True), (1300, False)])
def test_in_a_browser_nothing_is_cut_or_beyond_the_screen_and_colours_are_readable(
    files, tmp_path, width, dark
):
    """Every page in a frame as wide as a phone or a screen, code unfolded, in light and in dark
    colours.
    """
    frame = tmp_path / "frame.html"
    script = WATCH.replace("WIDTH", str(width)).replace(
        "PAGES", json.dumps([file.as_uri() for file in files])
    )
    frame.write_text(f"<!DOCTYPE html><body><script>{script}</script>")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--enable-logging=stderr",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--allow-file-access-from-files",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=100000",
            "--dump-dom",
            str(frame),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    found = json.loads(
        html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)[1])
    )
    assert len(found) == len(files) and all(one["texts"] > 50 for one in found)
    assert [one for one in found if one["wide"] > 0 or abs(one["shown"] - width) > 20] == []
    assert [one for one in found if one["pale"] or one["missing"]] == []
    assert [one for one in found if one["far"] or one["cut"]] == []
    assert "CONSOLE" not in done.stderr


def follow(folder):
    """Every link of every page under `folder`: those that lead nowhere, with the page they stand
    on.
    """
    lost = []
    for file in folder.rglob("*.html"):
        named = re.findall(r'\bid="([^"]*)"', file.read_text(encoding="utf-8"))
        for link in Links(file.read_text(encoding="utf-8")).links:
            place, _, part = link.partition("#")
            there = (file.parent / place).is_file() if place else part in named
            lost += [] if there or re.match(r"https?:", link) else [(file.name, link)]
    return lost


def test_every_link_of_the_published_site_leads_somewhere_and_titles_are_words(tmp_path):
    """Of every study that is kept, also those with some of the findings."""
    site.publish(tmp_path)
    assert len(list(tmp_path.rglob("*.html"))) > 15 and follow(tmp_path) == []
    first = (tmp_path / "index.html").read_text()
    assert first.index("microworld/index.html") < first.index("control/index.html")
    assert first.index("<th>5b Tuning") < first.index("<th>5b (text)")
    lines = json.loads((paths.REFERENCE / "microworld" / "findings.json").read_text())
    for line in lines:
        row = re.search(rf"<th>{re.escape(line['claim'])} [^(].*?</tr>", first)[0]
        assert f'href="microworld/{line["finding"]}.html"' in row and line["verdict"] in row
    tables = re.findall(r"<table.*?</table>", first, re.S)
    columns = [re.findall(r"<th>([\w-]+)</th>", one.partition("</thead>")[0]) for one in tables]
    assert ["microworld", "quick", "control", "published", "gpu", "reference"] in columns
    assert ["shift", "shift-quick", "reference"] in columns  # beside no study that asks others
    titles = [
        re.search(r"<title>(.*?)</title>", file.read_text())[1] for file in tmp_path.rglob("*.html")
    ]
    assert not [title for title in titles if re.match(r"\d\d_", title)]


def test_a_study_of_two_findings_links_to_its_own_pages_only(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    shutil.copytree(
        OUTPUTS / "smoke", tmp_path / "smoke", ignore=shutil.ignore_patterns("notebooks", "site")
    )
    two = smoke.model_copy(update={"findings": ("01_dataset_dichotomy", "04_task_transfer")})
    (tmp_path / "smoke" / "smoke.yaml").write_text(resolved(two))
    two = load_study(str(tmp_path / "smoke" / "smoke.yaml"))
    monkeypatch.setenv("PRETUNE_OUTPUTS", str(tmp_path))
    wanted = [page for page in pages.pages(plan_of(two)) if page.checkpoint == "all"]
    assert execution.execute(plan_of(two), wanted, 2) == {}
    site.render(two.title, {page: pages.executed(two, page) for page in wanted}, tmp_path / "site")
    assert follow(tmp_path / "site") == []
    text = (tmp_path / "site" / "index.html").read_text()
    assert 'href="04_task_transfer.html"' in text and "02_latent" not in text
    assert "← 1. Dataset dichotomy" in (tmp_path / "site" / "04_task_transfer.html").read_text()
