"""Executed notebooks: done only when the kernel left with success, stale when what they read
changed.
"""

import json
from dataclasses import replace

import nbformat
import psutil
import pytest
from jupyter_core.utils import run_sync

from conftest import plan_of
from pretune import paths
from pretune.report import execution, kernels, pages, pairing
from pretune.report.pages import Page, PageError
from pretune.study.load import load_study

PARAMETERS = 'study = "smoke"\ncheckpoint = "all"'


def notebook(folder, *sources, parameters=PARAMETERS, tag=True):
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]} if tag else {})
    ]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "01_dataset_dichotomy.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": pairing.KERNEL}), path
    )
    return path


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study that reads its notebooks from, and writes its pages to, an empty folder."""
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    return load_study("smoke", ("findings=[01_dataset_dichotomy]",))


ALL = Page("01_dataset_dichotomy", "all")


def test_a_page_gets_its_parameters_and_is_fresh_until_its_source_changes(study):
    notebook(paths.NOTEBOOKS, "print(study, checkpoint)")
    page = Page("01_dataset_dichotomy", "step-20")
    assert pages.stale(plan_of(study), [ALL, page]) == [ALL, page]
    assert execution.execute(plan_of(study), [page], 1) == {}
    made = nbformat.read(pages.executed(study, page), 4)
    assert "step-20" in made.cells[-1].outputs[0].text
    assert "papermill" not in made.metadata and str(paths.ROOT) not in json.dumps(made)
    assert pages.stale(plan_of(study), [page]) == []
    notebook(paths.NOTEBOOKS, "print(1)")
    assert pages.stale(plan_of(study), [page]) == [page]


def test_a_page_is_stale_where_another_checkpoint_is_late_now(study):
    """As when a folder of checkpoints got one more: rows say what the study says now."""
    notebook(paths.NOTEBOOKS, "print(1)")
    page, plan = Page("01_dataset_dichotomy", "step-36"), plan_of(study)
    assert execution.execute(plan, [page], 1) == {} and pages.stale(plan, [page]) == []
    moved = tuple(replace(one, late=one.step > 36) for one in plan.checkpoints)
    assert pages.stale(replace(plan, checkpoints=moved), [page]) == [page]


def test_a_cut_copy_is_not_fresh(study):
    notebook(paths.NOTEBOOKS, "print(1)")
    execution.execute(plan_of(study), [ALL], 1)
    copy = pages.executed(study, ALL)
    copy.write_text(copy.read_text()[:100])
    assert pages.stale(plan_of(study), [ALL]) == [ALL]


def test_a_cell_that_raises_is_reported_and_leaves_no_page(study):
    notebook(paths.NOTEBOOKS, "1 / 0")
    failed = execution.execute(plan_of(study), [ALL], 1)
    assert (
        "ZeroDivisionError" in failed["01_dataset_dichotomy"]
        and ".failed.ipynb" in failed["01_dataset_dichotomy"]
    )
    assert not pages.executed(study, ALL).exists()


def test_a_killed_kernel_is_never_taken_for_finished(study):
    """papermill saves the notebook of a killed kernel as completed. How far it came is kept."""
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    notebook(paths.NOTEBOOKS, "print('so far')", killed, "print('never')")
    failed = execution.execute(plan_of(study), [ALL], 1)
    assert "01_dataset_dichotomy" in failed and not pages.executed(study, ALL).exists()
    (kept,) = pages.executed(study, ALL).parent.glob("*.failed.ipynb")
    said = [out.text for cell in nbformat.read(kept, 4).cells for out in cell.get("outputs", ())]
    assert said == ["so far\n"]
    assert pages.stale(plan_of(study), [ALL]) == [ALL]


@pytest.mark.parametrize("kernel", ["no-such-kernel", "ends-at-once"])
def test_a_kernel_that_cannot_start_is_told_and_leaves_no_page(
    study, tmp_path, monkeypatch, kernel
):
    notebook(paths.NOTEBOOKS, "print(1)")
    spec = tmp_path / "jupyter" / "kernels" / "ends-at-once"
    spec.mkdir(parents=True)
    about = {
        "argv": ["false", "{connection_file}"],
        "display_name": "ends at once",
        "language": "python",
    }
    (spec / "kernel.json").write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setattr(kernels, "NAME", kernel)
    failed = execution.execute(plan_of(study), [ALL], 1)
    assert list(failed) == ["01_dataset_dichotomy"] and ("ernel" in failed["01_dataset_dichotomy"])
    assert not pages.executed(study, ALL).exists()


def test_pages_share_a_kernel_but_no_name(study):
    """Each starts in an empty namespace; after a kernel that died the next page gets a new one."""
    notebook(
        paths.NOTEBOOKS,
        "import os, signal\nassert 'left' not in dir()\nleft = os.getpid(); print(left)",
        "if checkpoint == 'step-36': os.kill(os.getpid(), signal.SIGKILL)",
    )
    some = [Page("01_dataset_dichotomy", f"step-{step}") for step in (0, 20, 36, 38)]
    assert list(execution.execute(plan_of(study), some, 1)) == ["01_dataset_dichotomy.step-36"]
    books = [nbformat.read(pages.executed(study, some[i]), 4) for i in (0, 1, 3)]
    one, two, three = (int(book.cells[-2].outputs[0].text) for book in books)
    assert one == two != three
    assert [cell.execution_count for cell in books[0].cells] == [
        cell.execution_count for cell in books[1].cells
    ]
    assert not psutil.pid_exists(one) and not psutil.pid_exists(three)


def test_one_page_that_fails_does_not_stop_the_others(study):
    notebook(paths.NOTEBOOKS, "assert checkpoint != 'step-0'")
    some = [Page("01_dataset_dichotomy", name) for name in ("step-0", "step-20", "step-36")]
    assert list(execution.execute(plan_of(study), some, 2)) == ["01_dataset_dichotomy.step-0"]
    assert pages.executed(study, some[2]).exists()


def test_a_kernel_that_does_not_answer_is_ended_and_another_takes_its_place(monkeypatch):
    monkeypatch.setattr(kernels, "PATIENCE", 1)
    kernel = kernels.Kernel()
    first = kernel.manager()
    run_sync(first.start_kernel)(extra_arguments=kernels.ARGUMENTS)
    stopped = psutil.Process(first.provisioner.pid)
    stopped.suspend()
    assert kernel.manager() is not first and not stopped.is_running()
    kernel.stop()


@pytest.mark.parametrize(
    ("parameters", "tag", "words"),
    [
        ('study = "smoke"', True, r"unknown parameters \['checkpoint'\]; allowed: \['study'\]"),
        (PARAMETERS, False, "0 cells are tagged"),
        (PARAMETERS + "\nboth = study + checkpoint", True, "literals only: both"),
        (PARAMETERS + "\nimport os", True, "literals only: import os"),
    ],
)
def test_parameters_are_checked_before_a_kernel_starts(study, parameters, tag, words):
    notebook(paths.NOTEBOOKS, parameters=parameters, tag=tag)
    with pytest.raises(PageError, match=words):
        execution.execute(plan_of(study), [ALL], 1)


def test_pages_of_a_study():
    names = [page.stem for page in pages.pages(plan_of(load_study("smoke")))]
    assert (
        names[:3] == ["00_overview", "01_dataset_dichotomy", "01_dataset_dichotomy.step-0"]
        and len(names) == 1 + 5 * 6
    )
    assert len(pages.pages(plan_of(load_study("smoke")), ("step-20",))) == 1 + 5 * 2
    assert pages.pages(plan_of(load_study("smoke")))[0].file == "index.html"
