"""A study is read strictly: what is wrong is refused in one line that names file, key, value and
what is allowed.
"""

import pytest
import yaml

from conftest import plan_of, run_pretune
from pretune import paths
from pretune.errors import StudyError
from pretune.study import config
from pretune.study.load import load_study, resolved

SMOKE = (paths.PARAMS / "smoke.yaml").read_text()


def write(folder, old="", new=""):
    assert old in SMOKE
    file = folder / "mine.yaml"
    file.write_text(SMOKE.replace(old, new, 1) if old else SMOKE + new)
    return str(file)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "items: 12",
            "itmes: 24",
            ["probing.itmes", "unknown key", "did you mean items?", "shots"],
        ),
        ("items: 12", "items: 12\n  items: 25", ["duplicate key 'items'"]),
        (
            "learning_rate: 1.0e-3",
            "learning_rate: 1e-3",
            ["tuning.learning_rate", '"1e-3"', "2.0e-6"],
        ),
        ("items: 12", "items: many", ["probing.items", '"many"', "integer"]),
        ("items: 12", "items: true", ["probing.items", "true"]),
        ("items: 12", "items: 0", ["probing.items", "0", "greater than 0"]),
        (
            "examples: 48",
            "examples: 48\n  betas: [0.9, 1.0]",
            ["tuning.betas.1", "1.0", "less than 1"],
        ),
        (
            "examples: 48",
            "examples: 48\n  betas: [-0.1, 0.9]",
            ["tuning.betas.0", "-0.1", "greater than or equal to 0"],
        ),
        ("examples: 48", "examples: 48\n  betas: [0.9]", ["tuning.betas.1", "missing"]),
        ("warmup: 0.1", "warmup: 0.1\n    betas: 0.9", ["checkpoints.pretraining.betas", "0.9"]),
        (
            "examples: 48",
            "examples: 48\n  max_length: 0",
            ["tuning.max_length", "0", "greater than 0"],
        ),
        ("examples: 48", "examples: 48\n  max_length: long", ["tuning.max_length", '"long"']),
        ("examples: 48", "examples: 4.5", ["tuning.examples", "4.5"]),
        (
            "examples: 48",
            "examples: 48\n  sharding: all",
            ["tuning.sharding", '"all"', "'auto', 'none' or 'fsdp'"],
        ),
        (
            "[xsum, cnn_dailymail, mnli, rte, hellaswag, arc_easy, held_out_text]",
            "[]",
            ["probing.datasets", "at least 1"],
        ),
        (
            "[xsum, cnn_dailymail,",
            "[xsumm, cnn_dailymail,",
            ["probing.datasets.0", "'xsumm'", "hellaswag"],
        ),
        (
            "mnli: {dataset: mnli}",
            "mnli: {dataset: glue}",
            ["recipes.mnli.dataset", "'glue'", "arc_easy"],
        ),
        ("base: {}", "plain: {}", ["recipes", "base"]),
        ("[0, 20, 36, 38, 40]", "[0, 20, 10]", ["checkpoints.steps", "must rise"]),
        ("[0, 20, 36, 38, 40]", "[0, 40]", ["checkpoints", "late (3)"]),
        ("[0, 20, 36, 38, 40]", "[0, -20]", ["checkpoints.steps"]),
        ("width: 64", "width: 63", ["architecture", "width 63", "multiple"]),
        ("length: 128", "length: 512", ["checkpoints.pretraining.length", "512", "context"]),
        ("source: microworld", "source: moon", ["checkpoints", "moon"]),
        (
            "[01_dataset_dichotomy, 02",
            "[09_luck, 02",
            ["findings.0", "'09_luck'", "01_dataset_dichotomy"],
        ),
        ("probing:", "cache: *none\nprobing:", ["aliases are refused"]),
        ("probing:", "protocol: corected\nprobing:", ["protocol", "corected"]),
        ("probing:", "protocol: {stop: never}\nprobing:", ["protocol.stop", "newline", "length"]),
        (
            "probing:",
            "grid: {learning_rate: [1.0e-4, 1.0e-3], steps: [21]}\nprobing:",
            ["grid.steps", "21", "36"],
        ),
        (
            "probing:",
            "grid: {learning_rate: [1.0e-4, 2.0e-4], steps: [20]}\nprobing:",
            ["recipes.xsum.learning_rate", "0.0002"],
        ),
        ("[xsum, cnn", "[tulu_v2, cnn", ["probing.datasets.0", "'tulu_v2'"]),
        ("title:", "tilte:", ["tilte", "did you mean title?"]),
    ],
)
def test_refused_in_one_line(tmp_path, old, new, words):
    with pytest.raises(StudyError) as refusal:
        plan_of(load_study(write(tmp_path, old, new)))
    message = str(refusal.value)
    assert "\n" not in message and "mine.yaml" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a",
        b"a: [",
        b"\x00",
        b"a: !!python/object/apply:os.system [ls]",
        b"title: \xff\xfe",
        b"[" * 20_000,
        b"a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]",
    ],
    ids=["empty", "a list", "cut", "nul", "a tag", "not UTF-8", "deep", "a bomb"],
)
def test_what_is_no_study_is_refused_and_nothing_is_made(tmp_path, content):
    (tmp_path / "odd.yaml").write_bytes(content)
    with pytest.raises(StudyError, match=r"odd\.yaml") as refusal:
        load_study(str(tmp_path / "odd.yaml"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["missing.yaml", "folder.yaml", "../../etc/passwd", "../smoke", "/dev/null"]
)
def test_a_file_that_is_not_there_exits_with_2_and_makes_nothing(tmp_path, name):
    (tmp_path / "folder.yaml").mkdir()
    done = run_pretune(
        "run",
        str(tmp_path / name) if name.endswith(".yaml") else name,
        outputs=tmp_path / "outputs",
    )
    assert done.returncode == 2 and "no such study" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["reference", "cache", "My study", "a.b"])
def test_names_that_are_no_folder_are_refused(tmp_path, name):
    (tmp_path / f"{name}.yaml").write_text(SMOKE)
    with pytest.raises(StudyError, match="named by its file"):
        load_study(str(tmp_path / f"{name}.yaml"))


def test_exit_code_and_single_line(tmp_path):
    done = run_pretune("plan", write(tmp_path, "items: 12", "items: none at all"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_unknown_study_and_checkpoint_name_what_is_known():
    done = run_pretune("run", "nothing")
    assert done.returncode == 2 and "smoke" in done.stderr
    done = run_pretune("run", "smoke", "--only", "step-7")
    assert done.returncode == 2 and "'step-7'" in done.stderr and "step-20" in done.stderr


def test_every_file_under_params_is_a_study():
    for study in (load_study(file.stem) for file in paths.PARAMS.glob("*.yaml")):
        # those of the Hub: test_families; of a user's own folder: test_new
        sources = {one.source for one in study.models.values()}
        assert sources <= {"hub", "folder"} or plan_of(study).cells


def test_resolved_shows_every_value_and_reads_back(tmp_path):
    study = load_study("smoke")
    text = resolved(study)
    assert yaml.safe_load(text)["tuning"]["warmup"] == 0.03  # a default, shown
    (tmp_path / "smoke.yaml").write_text(text)
    again = load_study(str(tmp_path / "smoke.yaml"))
    assert again.model_dump() == study.model_dump()


def test_overrides_reach_any_value():
    study = load_study(
        "smoke", ("tuning.seeds=3", "probing.datasets=[mnli]", "recipes.mnli.learning_rate=2.0e-4")
    )
    assert study.tuning.seeds == 3 and study.probing.datasets == ("mnli",)
    assert study.tuning_of("mnli").learning_rate == 2e-4
    assert study.tuning_of("xsum").learning_rate == study.tuning.learning_rate
    assert (
        len({cell.model.key for cell in plan_of(study).cells if cell.model.recipe == "mnli"})
        == 3 * 5
    )
    for wrong in ("tuning.seeds", "tuning.sedes=3", "title.a=1", "tuning.seeds=x"):
        with pytest.raises(StudyError):
            load_study("smoke", (wrong,))


def test_a_protocol_is_one_word_or_its_options():
    published = load_study("smoke", ("protocol=published",)).protocol
    assert (
        published.shots == "evaluated"
        and published.labels == "sub-tokens"
        and published.too_long == "flag"
    )
    assert all(
        getattr(published, name) != getattr(config.Protocol(), name)
        for name in config.Protocol.model_fields
    )
    assert (
        load_study("smoke", ("protocol=corrected",)).protocol
        == load_study("smoke").protocol
        == config.Protocol()
    )
    one = load_study("smoke", ("protocol.stop=length",))
    assert one.protocol == config.Protocol(stop="length") and "stop: length" in resolved(one)


def test_a_study_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_study("smoke").title = "other"


def test_what_is_wrong_in_a_file_is_told_together(tmp_path):
    """A line each, so that a file is mended in one go."""
    file = write(tmp_path, "  batch_size: 16", "  batch_size: none\n  epoch: 1")
    with pytest.raises(StudyError) as refusal:
        load_study(file)
    lines = str(refusal.value).splitlines()
    assert len(lines) == 2 and "epoch: unknown key; did you mean epochs?" in str(refusal.value)


def test_a_study_is_found_by_either_ending_and_the_nearest_is_named(tmp_path, monkeypatch):
    (tmp_path / "mine.yml").write_text(SMOKE)
    monkeypatch.setattr("pretune.paths.PARAMS", tmp_path)
    assert load_study("mine").name == "mine"
    with pytest.raises(StudyError, match=r"did you mean mine\?"):
        load_study("mime")


def test_a_number_of_processes_that_is_none_is_refused_in_plain_words(tmp_path):
    done = run_pretune("run", "smoke", "--jobs", "two", outputs=tmp_path / "outputs")
    assert done.returncode == 2 and "two is refused; it must be a number" in done.stderr


def test_a_folder_without_its_root_lies_beside_the_file_that_says_it(tmp_path, monkeypatch):
    file = write(tmp_path, "recipes:", "datasets: {source: folder, folder: rows}\nrecipes:")
    monkeypatch.chdir("/")
    assert load_study(file).datasets.folder == str(tmp_path / "rows")
    assert load_study(file, ("datasets.folder=tmp",)).datasets.folder == "/tmp"
