# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Overview: how pre-training and fine-tuning depend on each other
#
# A language model is trained twice: first on a great deal of text, then, a little, on the task it is wanted for. This report takes checkpoints saved along one pre-training run, measures each as it is and again after
# fine-tuning it in the same ways, and asks five questions, one page each:
#
# 1. [Dataset dichotomy](01_dataset_dichotomy.html): which datasets are learned in pre-training, and which are not?
# 2. [Latent benefits](02_latent_benefits.html): does more pre-training help a dataset in a way that shows only after fine-tuning?
# 3. [Task format](03_task_format.html): does fine-tuning fit the model to one prompt format, and does more pre-training loosen that?
# 4. [Task transfer](04_task_transfer.html): what happens to generation after tuning on classification, and the other way round?
# 5. [Domain forgetting](05_domain_forgetting.html): what happens to other domains of the same task, and to knowledge the task does not need?
#
# It redoes Sun & Dredze, "Amuro & Char: Analyzing the Relationship between Pre-Training and Fine-Tuning of Large Language Models" (arXiv 2408.06663), with controls that study lacked. Every claim was stated with the rule that judges it before the data;
# the rules stand on the pages.

# %% tags=["parameters"]
study = "quick"  # a file under params/, without its ending
checkpoint = "all"  # this page is on all checkpoints

# %%
from pretune import params
from pretune.figures import say, table, use_theme
from pretune.findings import overview

use_theme()
verdicts = overview.judge_all(study)
study = params.load_study(study)
overview.keep(study, verdicts)

# %% [markdown]
# ## The claims and their verdicts
#
# *Supported*: the 95 % interval of the effect lies wholly beyond the margin in the claimed direction, also when the claims of a page are taken as a family (Holm). *Not supported*: it lies wholly on the other side. *Undecided*: otherwise, or the condition
# for asking is not met. With fewer than three seeds a verdict is provisional. *n* counts items, summed over datasets. The control is the same study on a model pre-trained on a world that shares no name, fact or rule with the datasets: 1a and 2a must not
# be supported there.

# %%
overview.show_effects(verdicts)

# %%
table(overview.table(study, verdicts))

# %% [markdown]
# The numbers of the reference study are recomputed from the score tables its authors released, which is what makes the comparison possible. They rest on one seed and have no interval over seeds.
#
# ## What was run

# %%
say(overview.what_was_run(study))
say(overview.spread(study))
say(overview.against_reference(study, verdicts))

# %% [markdown]
# ## How to read this
#
# A generated world is a positive control: its effects were known to be obtainable when it was designed, so it shows what the instrument can see, not what is true of language. A verdict of *not supported* on it is a result about this model and this world. Where a
# study's datasets are the real ones, the names stand without "(microworld)".
