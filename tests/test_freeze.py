"""What a change of layout may not change: keys of models and probes, and the verdicts of the smoke
study.

A key that differs sets aside what was measured under it. Where that is meant, a version is
raised (`plan`), and the digests below are renewed in the same change, with the reason.
"""

import hashlib
import json

import pytest

from conftest import plan_of
from pretune import paths
from pretune.study.load import load_study

# The generated world is another (its version is 4), as are the studies on it, and a tuned model is
# asked about its own set without examples.
KEYS = {  # study: digests of the keys of its models and of its probes, and how many there are
    "smoke": ("5945891558c36080", 25, "68f1c0fd7df8be96", 325),
    "quick": ("a381f5cfa4111f55", 45, "8e3ee2fce0cfc4f7", 985),
    "microworld": ("e3a49308bec13233", 306, "7810b67acc3a1a32", 5328),
}


def keys(name):
    cells = plan_of(load_study(name)).cells
    models = sorted({cell.model.key for cell in cells})
    probes = sorted({f"{cell.model.key} {probe.key}" for cell in cells for probe in cell.probes})
    return digest(models), len(models), digest(probes), len(probes)


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", KEYS)
def test_models_and_probes_keep_their_keys(name):
    assert keys(name) == KEYS[name]


def test_the_smoke_study_keeps_its_verdicts(smoke):
    kept = json.loads((paths.study_folder(smoke.name) / "findings.json").read_text())
    words = {line["claim"]: line["verdict"] for line in kept}
    assert len(words) == 17
    assert {claim: word for claim, word in words.items() if word != "not asked"} == {
        "5b (text)": "undecided"
    }
