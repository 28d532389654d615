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
# (outputs/reference/PREREGISTRATION.md). Each line was printed at the commit that its study was run
# at, which its pages name: what is kept was all trained and scored as it would be today.
KEYS = {  # study: digests of the keys of its models and of its probes, and how many there are
    "smoke": ("ce5f95a6bd203a1f", 25, "0773fd9571a516e8", 325),
    "quick": ("f4f338953d1fb5ce", 48, "bad1b99b8261abf1", 930),
    "microworld": ("2a34541570ca5544", 318, "12f16aec21f2c9ad", 8784),
    "control": ("aaf4edcfbf9a0ce3", 80, "a747a32033f5253e", 440),
    "gpu": ("b90abd69f1ad778d", 54, "69e0ef461efab83f", 1662),
    "dynamics": ("d77e90e81fa74c4c", 162, "75ac4669567cfac1", 2322),
    "dynamics-quick": ("117a69b49d82197d", 56, "8bd5dc5072368b22", 536),
    "shift": ("74e6c93d761a954c", 450, "d7a4dd476a7dd371", 3270),
    "shift-quick": ("0d674731625a5510", 40, "8e70bdf082df557b", 282),
    "data": ("6b6c0bb2aabf96d2", 885, "869f34447b517c59", 1740),
    "data-quick": ("8fe457065a11f9de", 130, "54837bca97dbc34c", 245),
    "knowledge": ("2aa1073c2719026b", 534, "1fa8033b4e2adc94", 4200),
    "knowledge-quick": ("4c70d1fa338151fe", 64, "8213898219d85c64", 558),
    "methods": ("d80f824695be3492", 1010, "c1ee17768d2c3777", 8720),
    "methods-quick": ("1695132d03b207d2", 49, "a60a6929aed34015", 411),
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


def test_every_kept_study_is_frozen():
    kept = {folder.name for folder in paths.REFERENCE.iterdir() if folder.is_dir()}
    assert kept <= {*KEYS, "published"}  # of which nothing was trained or scored here


def test_the_smoke_study_keeps_its_verdicts(smoke):
    kept = json.loads((paths.study_folder(smoke.name) / "findings.json").read_text())
    words = {line["claim"]: line["verdict"] for line in kept}
    assert len(words) == 17
    assert {claim: word for claim, word in words.items() if word != "not asked"} == {
        "5b (text)": "undecided"
    }
