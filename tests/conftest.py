"""Shared by all tests: outputs in a folder of their own, a small model, the smoke study run
once.
"""

import atexit
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

OUTPUTS = Path(tempfile.mkdtemp(prefix="pretune-tests-"))
atexit.register(shutil.rmtree, OUTPUTS, ignore_errors=True)
os.environ["PRETUNE_OUTPUTS"] = str(OUTPUTS)  # before anything of pretune is imported

import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402

from pretune import cli, paths  # noqa: E402
from pretune.models import pretraining  # noqa: E402
from pretune.recipes.pretrain import Architecture  # noqa: E402
from pretune.report.open import open_plan  # noqa: E402
from pretune.run import queue, work  # noqa: E402
from pretune.sources import datasets, found  # noqa: E402
from pretune.sources.microworld.text import documents  # noqa: E402
from pretune.sources.microworld.world import make_world  # noqa: E402
from pretune.study.load import load_study  # noqa: E402
from pretune.tasks import rows  # noqa: E402

torch.set_num_threads(1)
CORES = sorted(os.sched_getaffinity(0))
if worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
    # one processor for each: studies run in one process then, and do not load torch twice
    os.sched_setaffinity(0, {CORES[int(worker) % len(CORES)]})
ROOT = Path(__file__).resolve().parents[1]
REAL_ROWS = Path(os.environ.get("PRETUNE_REAL_ROWS", ROOT.parent / "shared" / "data"))
# tokenizer, branch names
OLMO = Path(os.environ.get("PRETUNE_OLMO_TOKENIZER", ROOT.parent / "shared" / "olmo-1b"))


# files of tests that take longest, begun first: so two processes end together
LONGEST = (
    "hub group cluster study faults methods tuning_data new divergence families knowledge site"
)


def pytest_collection_modifyitems(items) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST.split())}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def run_pretune(
    *words: str,
    outputs: Path = OUTPUTS,
    environment=os.environ,
    module: str = "pretune.cli",
    **options,
) -> subprocess.CompletedProcess:
    """`pretune ...` as a user would run it."""
    command = [sys.executable, "-m", module, *words]
    environment = environment | {"PRETUNE_OUTPUTS": str(outputs)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, **options
    )


class Here:
    """An executor that does each job at once and in the process of the tests, where torch is
    loaded already: for tests of what is done, and not of processes.
    """

    def __init__(self, jobs: int, given: int = 1):
        self.free, self.heard = jobs, []
        work.say = self.heard.append

    def submit(self, job, *arguments, aside=False) -> Future:
        future = Future()
        try:
            future.set_result(job(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def killed(self, future) -> bool:
        return False

    def said(self):
        heard, self.heard[:] = list(self.heard), []
        return heard

    def abandon(self):
        """Nothing is at work."""

    close = abandon


def run_here(*words: str, outputs: Path = OUTPUTS) -> SimpleNamespace:
    """`pretune ...` without processes of its own, its kernels excepted; exit code and what it
    said.
    """
    said, told, root = io.StringIO(), io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(told)
    interrupt = signal.getsignal(signal.SIGINT)
    rows.read.cache_clear()
    rows.frequent_output.cache_clear()
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(paths, "OUTPUTS", outputs)
        changed.setattr(paths, "CACHE", outputs / "cache")
        changed.setattr(queue, "Processes", Here)
        changed.setenv("PRETUNE_OUTPUTS", str(outputs))  # for kernels
        root.addHandler(handler)
        try:
            with redirect_stdout(said), redirect_stderr(told):
                code = cli.main(list(words))
        finally:
            root.removeHandler(handler)
            signal.signal(signal.SIGINT, interrupt)
    return SimpleNamespace(returncode=code, stdout=said.getvalue(), stderr=told.getvalue())


def plan_of(study, overrides=()):
    """The plan of a study, which is given or named."""
    return open_plan(load_study(study, overrides) if isinstance(study, str) else study)


@pytest.fixture(scope="session")
def world():
    return make_world(1)


@pytest.fixture(scope="session")
def tokenizer(world):
    stream = documents(world, 0)
    return pretraining.train_tokenizer((next(stream) for _ in range(500)), 512)


@pytest.fixture
def model(tokenizer):
    """An untrained model, anew for each test; its weights are widened so that its outputs
    differ.
    """
    shape = Architecture(layers=2, width=32, heads=2, intermediate=64, context=256, vocabulary=512)
    network = pretraining.new_model(shape, tokenizer, seed=0).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(8)
    return network


@pytest.fixture(scope="session")
def real_rows():
    if not REAL_ROWS.is_dir():
        pytest.skip("rows of the real datasets are not here; PRETUNE_REAL_ROWS names their folder")
    return REAL_ROWS


@pytest.fixture(scope="session")
def olmo():
    if not OLMO.is_dir():
        pytest.skip("OLMo's tokenizer is not here; PRETUNE_OLMO_TOKENIZER names its folder")
    return OLMO


@pytest.fixture(scope="session")
def smoke():
    """The smoke study, run to its end once through the command line; processes of one test run
    share what it left.
    """
    shared = Path(
        tempfile.gettempdir(),
        f"pretune-smoke-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}",
    )
    with FileLock(f"{shared}.lock"):
        if shared.is_dir():
            shutil.copytree(shared, OUTPUTS, dirs_exist_ok=True)
        else:
            # on all processors: the other workers wait for it
            done = run_pretune(
                "run", "smoke", timeout=300, preexec_fn=lambda: os.sched_setaffinity(0, CORES)
            )
            assert done.returncode == 0, done.stderr
            shutil.copytree(OUTPUTS, shared)
            atexit.register(shutil.rmtree, shared, ignore_errors=True)
            atexit.register(Path(f"{shared}.lock").unlink, missing_ok=True)
    return load_study("smoke")


OLMO_1B = {
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "intermediate_size": 8192,
    "vocab_size": 50304,
    "max_position_embeddings": 2048,
}


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch):
    """A study of the Hub by name, whose models have a configuration like this, in outputs of its
    own.
    """
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    monkeypatch.setattr(datasets, "pinned_data", lambda study: {})

    def study(name, config, *overrides):
        point = {"run": 0, "tokens": 1, "stage": "", "repo": "lab/model", "bytes": 1}
        there = [
            point | {"name": f"step{step}", "step": step, "commit": str(step)}
            for step in range(1000, 6000, 1000)
        ]
        monkeypatch.setattr(found, "pinned", lambda study: {"config": config, "checkpoints": there})
        return load_study(name, ("grid=null", *overrides))

    return study
