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

# What the keys of adapters are made of is what peft calls it, since adapters are kept as adapters:
# 70 of the 348 models have another key than before, every probe has its own.
KEYS = {  # study: digests of the keys of its models and of its probes, and how many there are
    "smoke": ("eb54aea84c2af390", 25, "1aa0860f51267ec7", 320),
    "quick": ("2dd6dd2b412b6846", 45, "44847dacb7a35509", 935),
    "microworld": ("1437f395e8e694fa", 278, "963fc97096e5e7e8", 6209),
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
