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

# The generated world is another (its version is 5), as are the studies on it: more is asked in its
# text, and tuning takes more rows and rates chosen anew.
KEYS = {  # study: digests of the keys of its models and of its probes, and how many there are
    "smoke": ("84d4b36c788e6434", 25, "ebef605ed0d1c718", 325),
    "quick": ("f2c42a834639623d", 45, "fb19f264fcf408ab", 985),
    "microworld": ("d0c003216512908a", 306, "10b3d9b320152567", 5328),
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
