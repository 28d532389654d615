"""Renew environment.yml: install what pyproject.toml asks for in a fresh environment, and write
down what came.

Run as `make lock`. torch stays as it is pinned: its newest release would bring other builds and
gigabytes with it.
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "environment.yml"
HEAD = """# The lock: every package with its exact version. Renew with `make lock`. conda reads it
# as it is (conda env create -f environment.yml), make builds .venv from the same lines by pip.
name: pretune
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def main() -> None:
    torch = re.search(r"torch==[\w.]+", LOCK.read_text())[0]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", torch], check=True)
        subprocess.run([*pip, "install", "-e", f"{ROOT}[test]"], check=True)
        frozen = subprocess.run(
            [*pip, "freeze"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
    pins = sorted(re.sub(r"\+.*", "", line) for line in frozen if re.match(r"[\w.-]+==", line))
    LOCK.write_text(HEAD + "".join(f"      - {pin}\n" for pin in [*pins, "-e ."]))
    print(f"{LOCK.name}: {len(pins)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
