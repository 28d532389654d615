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

# %% tags=["parameters"]
study = "quick"  # a file under params/, without its ending
checkpoint = "all"  # this page is on all checkpoints

# %%
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.report import overview
from pretune.report.open import open_plan
from pretune.study.load import load_study

use_theme()
plan = open_plan(load_study(study))
study, verdicts = plan.study, overview.judge_all(plan)
overview.keep(plan, verdicts)
overview.summary(plan, verdicts)

# %% [markdown]
# ## At a glance
#
# A language model is trained twice: first on a great deal of text, then, a little, on the task it
# is wanted for. This report takes checkpoints saved along pre-training, each as it is and again
# after fine-tuning it in the same ways, and asks one question a page. Findings 1 to 5 are those of
# Sun & Dredze, "Amuro & Char: Analyzing the Relationship between Pre-Training and Fine-Tuning of
# Large Language Models" (arXiv 2408.06663); those from 7 on take up what other studies claim.
#
# The figures of the pages follow, where they have one. That of the dataset dichotomy is of the
# untuned model, shown a few examples: the datasets that pre-training teaches, and those that it
# does not. That of latent benefits is of the ones it does not teach and that have training rows:
# after a little tuning on these they may turn out to have gained from pre-training all along. Thin
# lines are single datasets. Whether any of it is more than luck is what the claims decide.

# %%
overview.glances(plan)

# %% [markdown]
# ## The claims and their verdicts
#
# Where the 95 % interval of the effect lies, widened for the claims of a page as a family (Holm): ▲
# *supported*, wholly beyond the margin in the claimed direction; ■ *no effect*, within both
# margins; ▼ *opposite*, wholly beyond the margin in the other direction; ✖ *not supported*, wholly
# below the margin and neither; ◇ *undecided*, around the margin. ○ *Not asked*: the condition for
# asking is not met, and the page says which. With fewer than three seeds or runs a verdict is
# provisional. An effect is *decidable from* the smallest size that would be found supported in 80 %
# of trials; p is Holm's. *n* counts items, summed over datasets. The control is the same study on a
# model pre-trained on a world that shares no name, fact or rule with the datasets: 1a and 2a must
# not be supported there.

# %%
overview.show_effects(verdicts)

# %%
table(overview.table(study, verdicts))

# %%
say(overview.on_references(study))

# %% [markdown]
# ## What this study does not ask
#
# Other findings have studies of their own. What their kept runs say (under `outputs/reference`, not
# measured here), of each claim the run that can say most:

# %%
table(overview.elsewhere(study))

# %% [markdown]
# ## What was run

# %%
say(overview.what_was_run(plan))
say(overview.spread(plan))
say(overview.against_reference(study, verdicts))

# %% [markdown]
# ## How to read this
#
# Datasets of a generated world are named "(microworld)". Such a world is a positive control: its
# effects were known to be obtainable when it was designed, so it shows what the instrument can see,
# not what is true of language, and a claim that does not come out on it is a result about that
# model and that world.
