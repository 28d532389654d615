"""The released tables: fetched whole or not at all, read strictly, nothing filled in."""

import functools
import hashlib
import http.server
import threading

import pytest

from conftest import ROOT, run_pretune
from pretune import paths
from pretune.findings import dataset_dichotomy, published_tables
from pretune.report.open import open_results
from pretune.sources import released
from pretune.sources.released import MAIN, TableError
from pretune.study.load import load_study, resolved

REAL = ROOT.parent / "shared" / "published"
BASE, TUNED = "olmo1b_checkpoint-1000_original_hf_4shots", "olmo1b_hf_main_mnli_3epoch_2e-6_4shots"
NO_ERRORS = ("", "model_id", "eval dataset", "Performance")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of three small published_tables, and a function that changes one of them, checksum
    included.
    """
    home = tmp_path / "tables"
    home.mkdir()

    def write(
        name, lines, pinned=True, columns=("", "model_id", "eval dataset", "Performance", "std")
    ):
        text = (
            "\n".join(
                ",".join(map(str, line))
                for line in [columns, *((i, *line) for i, line in enumerate(lines))]
            )
            + "\n"
        )
        (home / name).write_text(text)
        if pinned:
            monkeypatch.setitem(released.SHA256, name, hashlib.sha256(text.encode()).hexdigest())

    write(
        "all_perf_table.csv",
        [(BASE, "mnli_matched", 0.354, 0.005), (TUNED, "mnli_matched_instruct", 0.74, 0.004)],
    )
    write("official_eval_table.csv", [("checkpoint-1000", "hellaswag", 0.253)], columns=NO_ERRORS)
    write("it_perf_table.csv", [("checkpoint-1000", "alpaca", 12.5)], columns=NO_ERRORS)
    return home, write


def test_a_cell_becomes_a_summary_row(folder):
    rows = released.rows(str(folder[0])).set_index(["dataset", "recipe", "format"])
    base, tuned = rows.loc["mnli", "base", "default"], rows.loc["mnli", "mnli", "instruct"]
    assert (base["step"], base["tokens"], base["late"], base["shots"]) == (
        1000,
        1000 * 2048 * 2048,
        False,
        4,
    )
    assert (tuned["step"], tuned["checkpoint"], tuned["late"], tuned["score"]) == (
        MAIN,
        "main",
        True,
        0.74,
    )
    assert base["baseline"] == pytest.approx(0.3545, abs=1e-4) and base["standard_error"] == 0.005
    choice = rows.loc["hellaswag", "base", "default"]
    assert choice["standard_error"] == pytest.approx((0.253 * 0.747 / 10042) ** 0.5)
    assert list(released.left_out(str(folder[0]))["eval dataset"]) == ["alpaca"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            [("olmo1b_hf_ckpt1000_mnli_best", "xsum", 0.1, 0.1)],
            "'olmo1b_hf_ckpt1000_mnli_best' is no name of a run",
        ),
        (
            [("olmo1b_checkpoint-2000_original_hf_4shots", "xsum", 0.1, 0.1)],
            "names step 2000; known: 1000, 18000",
        ),
        ([(BASE, "anli", 0.1, 0.1)], "'anli' is no name of a dataset; known: mnli_matched"),
        ([(BASE, "xsum", 1.2, 0.1)], "scores 1.2, which is not between 0 and 1"),
        ([(BASE, "xsum", "", 0.1)], "scores nan, which is not between 0 and 1"),
        ([(BASE, "xsum", 0.1, 0.1), (BASE, "xsum", 0.2, 0.1)], "on 'xsum' stands there twice"),
    ],
)
def test_what_it_does_not_know_is_one_clear_line(folder, lines, words):
    home, write = folder
    write("all_perf_table.csv", lines)
    with pytest.raises(TableError, match="all_perf_table.csv.*" + words) as error:
        released.rows(str(home))
    assert "\n" not in str(error.value)


def test_another_checksum_and_missing_columns_and_files_are_refused(folder):
    home, write = folder
    write("all_perf_table.csv", [(BASE, "xsum", 0.1, 0.1)], pinned=False)
    with pytest.raises(
        TableError, match="its checksum is not that of the released table at commit 8b79c39"
    ):
        released.rows(str(home))
    write("all_perf_table.csv", [(BASE, "xsum", 0.1)], columns=NO_ERRORS)
    with pytest.raises(TableError, match="column 'std' is missing"):
        released.rows(str(home))
    (home / "all_perf_table.csv").unlink()
    with pytest.raises(
        TableError, match="all_perf_table.csv: not there; the folder must hold all_perf"
    ):
        released.tables(str(home))


def test_tables_are_downloaded_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, form, *words):
            asked.append(words[0])

    serve = functools.partial(Handler, directory=folder[0])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert len(released.rows(address)) == 3 and len(released.rows(address)) == 3
        assert len(asked) == 3
        (folder[0] / "it_perf_table.csv").write_text("cut")
        (paths.CACHE / "published" / "it_perf_table.csv").unlink()
        with pytest.raises(TableError, match="it_perf_table.csv"):
            released.rows(address)
        server.shutdown()
    (paths.CACHE / "published" / "all_perf_table.csv").unlink()
    with pytest.raises(TableError, match="Connection refused; without a network give a folder"):
        released.rows(address)


@pytest.mark.skipif(not REAL.is_dir(), reason="the released tables are not here")
def test_the_released_tables_are_read_to_the_last_cell():
    rows, rest = released.rows(str(REAL)), released.left_out(str(REAL))
    assert len(rows) + len(rest) == 649 + 107 + 97
    assert not rows.duplicated(["step", "recipe", "dataset", "format", "shots"]).any()
    assert list(rest.loc[rest["why_left_out"].str.startswith("stray"), "run"]) == [
        "checkpoint-1000_4shots"
    ]
    mnli = rows[
        (rows["dataset"] == "mnli")
        & (rows["recipe"] == "mnli")
        & (rows["format"] == "default")
        & (rows["shots"] == 4)
    ]
    assert list(mnli.sort_values("step")["score"].round(3)) == [
        0.354,
        0.557,
        0.787,
        0.784,
        0.792,
        0.799,
        0.798,
        0.79,
    ]


def test_the_command_line_takes_a_folder_or_says_what_to_do(folder, tmp_path):
    done = run_pretune("plan", "published", "--set", f"tables={folder[0]}")
    assert (
        done.returncode == 0
        and f"nothing to measure: scores are read from {folder[0]}" in done.stdout
    )
    done = run_pretune(
        "run", "published", "--set", f"tables={tmp_path}", outputs=tmp_path / "outputs"
    )
    assert (
        done.returncode == 1
        and "all_perf_table.csv: not there" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert run_pretune("run", "quick", "--set", f"tables={tmp_path}").returncode == 2


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page on the released tables."""
    if not REAL.is_dir():
        pytest.skip("the released tables are not here")
    file = tmp_path_factory.mktemp("study") / "published.yaml"
    file.write_text(resolved(load_study("published", (f"tables={REAL}",))))
    return open_results(str(file), "06_published_tables", "all")


def test_both_group_means_of_table_6_come_out_to_three_digits(page):
    found = published_tables.group_gains(page)
    for group in ("learned in fine-tuning", "learned in pre-training, SciQ twice"):
        assert list(found[group]) == list(found[f"{group}: printed"])
    once = ["0.037", "0.041", "0.002", "0.009", "0.022", "0.017", "0.014", "-0.002"]
    assert list(found["learned in pre-training, SciQ once"]) == once


def test_the_changes_across_kinds_come_out_and_what_carries_them(page):
    lost, kept = published_tables.transfer_ratios(page).to_dict("index").values()
    assert lost["cells"] == kept["cells"] == 32
    assert (lost["mean ratio"], lost["median"], lost["ratio of sums"]) == (
        "-61.46%",
        "-98.6%",
        "-69.1%",
    )
    assert lost["farthest cell"] == "+4.91, base 0.019" and lost["mean without it"] == "-79.3%"
    assert kept["mean ratio"] == "+0.31%"


def test_the_changes_of_other_domains_come_out_and_paraphrase_is_void(page):
    found = published_tables.domain_changes(page)
    assert dict(found["recomputed"]) == {
        "MNLI": "+0.246",
        "SocialIQa": "+0.021",
        "XSum": "-0.003",
        "PAWS": "-0.182",
    }
    assert dict(found["labels"]) == {
        "MNLI": "public",
        "SocialIQa": "public",
        "XSum": "public",
        "PAWS": "hidden",
    }
    assert (
        published_tables.shares_of_no(page).loc[["QQP, base", "STS-B, base"], "1,000"] > 0.999
    ).all()


def test_the_format_gaps_come_out(page):
    found = published_tables.format_gaps(page).round(2)
    assert list(found.loc["mean relative gap to instruct"]) == [
        0.42,
        0.20,
        0.37,
        0.16,
        0.21,
        0.13,
        0.10,
        0.12,
    ]
    assert list(found.loc["MNLI, default minus io"]) == [
        0.01,
        0.20,
        0.36,
        0.36,
        0.26,
        0.33,
        0.24,
        0.18,
    ]


def test_the_pair_of_last_checkpoints_gives_the_noise(page):
    found = published_tables.replicates(page)
    assert found.loc["PAWS after paws", ["step 738,000", "main"]].round(3).tolist() == [
        0.732,
        0.878,
    ]
    beyond = published_tables.effects_beyond_noise(page)["beyond the noise"]
    assert (
        beyond[["MNLI", "PAWS", "SocialIQa"]].eq("yes").all()
        and beyond[["SciQ", "HellaSwag", "OpenBookQA"]].eq("no").all()
    )


def test_untuned_scores_that_are_a_constant_answer_are_named(page):
    which = dataset_dichotomy.constant_scores(page)["which"]
    assert which["MNLI"] == "entailment at 1,000; contradiction at 738,000, 738,020"
    assert "no at" in which["PAWS"] and "738,020" in which["PAWS"]


def test_the_turn_down_at_the_end_is_within_the_noise_of_the_pair(page):
    end = published_tables.end_of_the_run(page).loc["pre-training group, 5 sets, tuned"]
    assert (end["505,000"], end["738,020"]) == ("0.601", "0.577")
    assert "changes by -0.023" in published_tables.turn_down(page)
    assert "+0.11 (+0.08 to +0.13)" in published_tables.late_boolq(page)
