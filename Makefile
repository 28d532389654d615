# Each target says the plain commands it runs. `make` alone is `make report`.
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= quick

.PHONY: report test test-long test-cluster rehearsal mutants bench lab notebooks lock

# The main job: measure what is missing, execute the notebooks, render, print the path of the page.
#   .venv/bin/pretune run quick
report: .venv/ready
	$(BIN)/pretune run $(STUDY)

#   .venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder
test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Thirty kills of the run, its workers and its kernels, spread over one run; a study run by the installed package.
#   .venv/bin/pytest -m slow tests/test_kills.py tests/test_package.py
test-long: .venv/ready
	$(BIN)/pytest -m slow tests/test_kills.py tests/test_package.py

# Thirty kills of the workers of a cluster and of the run, with a shared folder and with none; workers that a
# Slurm of one node starts, where root and Debian's slurm-wlm and munge are there.
#   .venv/bin/pytest -m slow tests/test_cluster.py tests/test_slurm.py
test-cluster: .venv/ready
	$(BIN)/pytest -m slow tests/test_cluster.py tests/test_slurm.py

# The path of a study of OLMo-1B on a CPU, with a local Hub and real rows (PRETUNE_REAL_ROWS names their folder).
#   .venv/bin/pytest -m slow tests/test_rehearsal.py
rehearsal: .venv/ready
	$(BIN)/pytest -m slow tests/test_rehearsal.py

# How many changes of the code the tests notice, of a fixed sample; keeps outputs/reference/mutants.json.
#   .venv-bench/bin/python tests/mutants.py
mutants: .venv-bench/ready
	.venv-bench/bin/python tests/mutants.py

# Ours beside what a user would pick instead, in one run; with the peers in an environment of their own.
# Then the quick study against its floor, in an empty folder, how time and memory grow, and how soon
# pre-training is where it used to end.
#   PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.run
#   PRETUNE_OUTPUTS=$(mktemp -d) PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.floor
#   PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.scaling
#   PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.reach
bench: .venv-bench/ready
	PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.run
	PRETUNE_OUTPUTS=$$(mktemp -d) PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.floor
	PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.scaling
	PYTHONPATH=tests .venv-bench/bin/python -m benchmarks.reach

.venv-bench/ready: environment.yml pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install $$(sed -n 's/^ *- \(torch==.*\)$$/\1/p' environment.yml)
	.venv-bench/bin/pip install -e ".[bench]"
	touch $@

# A .ipynb opens as a notebook by itself; its percent script opens as one by "Open With > Notebook".
#   .venv/bin/jupyter lab --notebook-dir=. notebooks/01_dataset_dichotomy.ipynb
lab: .venv/ready
	$(BIN)/jupyter lab --notebook-dir=. notebooks/01_dataset_dichotomy.ipynb

# The output-free .ipynb beside every percent script.
#   .venv/bin/python -m pretune.report.pairing
notebooks: .venv/ready
	$(BIN)/python -m pretune.report.pairing

# Renew environment.yml: the newest versions that pyproject.toml allows, but torch as it is pinned.
#   .venv/bin/python tests/lock.py
lock: .venv/ready
	$(BIN)/python tests/lock.py

# The environment, from the very lines that conda would read: everything below `- pip:`. torch comes first and
# alone, so that no other package can ask for another build of it.
#   python3 -m venv .venv
#   .venv/bin/pip install torch==2.13.0
#   .venv/bin/pip install -r .venv/lock.txt
.venv/ready: environment.yml pyproject.toml
	$(PYTHON) -m venv .venv
	sed -n 's/^ *- \(.*==.*\|-e \..*\)$$/\1/p' environment.yml > .venv/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' .venv/lock.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r .venv/lock.txt
	touch $@
