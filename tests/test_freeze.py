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

# Batches have few shapes (both versions of training are raised), and the studies on the generated
# world have other sizes and steps. Those of `quick` and `microworld` were chosen anew on 2026-11-27
# (outputs/reference/PREREGISTRATION.md).
KEYS = {  # study: digests of the keys of its models and of its probes, and how many there are
    "smoke": ("ce5f95a6bd203a1f", 25, "0773fd9571a516e8", 325),
    "quick": ("f4f338953d1fb5ce", 48, "bad1b99b8261abf1", 930),
    "microworld": ("2a34541570ca5544", 318, "12f16aec21f2c9ad", 8784),
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
