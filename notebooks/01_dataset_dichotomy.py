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
# # 1. Dataset dichotomy: which datasets are learned in pre-training, and which are not?

# %% tags=["parameters"]
study = "quick"  # a file under params/, without its ending
checkpoint = "all"  # "all", or the name of one checkpoint, for example "step-100"
margin = 0.05  # the smallest change that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis import results
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import dataset_dichotomy
from pretune.report import answers, behaviour, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "01_dataset_dichotomy", checkpoint, margin, sets)
answers.summary(page, dataset_dichotomy)

# %% [markdown]
# ## The question
#
# A language model is saved many times while it is pre-trained. If each saved copy, a *checkpoint*,
# answers a dataset from a few examples in its prompt, the scores over checkpoints form a curve. Sun
# & Dredze ("Amuro & Char", arXiv 2408.06663) saw two kinds of curve on OLMo-1B: some datasets rise
# along pre-training, others stay flat, as if pre-training taught nothing about them.
#
# **What would count as an answer.** For the claim: a group of datasets whose score rises from the
# first checkpoint to the last ones by more than .05, and a group that provably does not, apart from
# each other on items that were not used to form the groups. Against it: no such groups, or groups
# that fall together again on fresh items. A flat curve alone is weak evidence: the model may give
# the same answer to every question, and then its score says nothing about its skill.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# **Claim 1a.** Some datasets are learned in pre-training and some are not. **Rule, fixed before the
# data.** *Early* is the first checkpoint after step 0, *late* the mean over the last neighbouring
# ones. On half A of the items, a dataset is *learned* if the 95 % interval of its gain, late minus
# early, lies above .05 and that of its lift over no skill above 0; *not learned* if the interval of
# the lift lies below .05, or that of the gain within ±.05: equivalence, not absence of
# significance. A set that beats no skill by .05 with its interval at *early* already is *learned
# before* and in neither group. Otherwise it stays undecided. On half B, the mean gain of the
# learned minus that of the not-learned sets must lie beyond .05 with its interval. Asked only where
# both groups have two sets; sets that share their items (SciQ with and without its passage) count
# once.
#
# **Claim 1b.** A flat set is a constant answer rather than a skill. **Rule.** Over the not-learned
# classification sets, at late: the share of the most frequent prediction within each checkpoint,
# shot draw and run, averaged; a constant that changes from one checkpoint to the next is still a
# constant. In the set where its interval reaches lowest, that lies above .95 (supported), below .95
# (not supported), else undecided. Balanced accuracy minus chance stands beside it.

# %%
say(prose.intervals(page))

# %% [markdown]
# ## What was measured

# %%
say(prose.asked(page))
material.introduce(page)

# %% [markdown]
# Every number below is computed from this table, with a row for each scored item and model; its
# columns are explained by `help(page.frame)`.

# %%
scores = page.frame()
material.head(scores)

# %% [markdown]
# ## A first look
#
# The naive reading takes the score as it is. For all checkpoints it is a curve over pre-training
# tokens; for one checkpoint it is a row of scores, before tuning and after.

# %%
if page.is_whole:
    dataset_dichotomy.show_curves(page)
else:
    behaviour.show_before_after(page)
    if page.has_items:
        behaviour.show_tuning(page)

# %%
table(dataset_dichotomy.first_look(page))

# %% [markdown]
# ## Why that is not enough: the same answer to every question
#
# A classification score of one third can be a model that guesses, or one that always says
# "neutral". Only what it predicts can tell. The bars show the share of each predicted label. A
# single colour from top to bottom is a constant answer, whatever its score.

# %%
if page.has_items:
    behaviour.show_label_shares(page)
    table(dataset_dichotomy.constant_answers(page))
else:
    table(dataset_dichotomy.constant_scores(page))
    say(results.NO_ITEMS)

# %% [markdown]
# ## A second view: calibrated scoring
#
# A model may lean towards a label because the word is likely, not because of the question.
# Subtracting the log-likelihood that each answer has after a content-free prompt (the item replaced
# by "N/A") takes that leaning away. If a flat dataset rises under this scoring, the skill was there
# and the scorer hid it.

# %%
calibrated = results.rescored(page, "calibrated")
if page.has_items:
    table(dataset_dichotomy.side_by_side(page, calibrated))
else:
    say(results.NO_ITEMS)

# %%
if page.is_whole and page.has_items:
    say(dataset_dichotomy.calibration_says(page, calibrated))

# %% [markdown]
# ## What the model says
#
# The first item of each dataset in the study's fixed order, with the prompt (its middle left out
# where long), what the model answers, and the gold answer. Chosen by that rule, not by eye.

# %%
behaviour.show_prompts(page, list(page.titles))

# %% [markdown]
# ## The comparison

# %%
if page.is_whole:
    dataset_dichotomy.show_gains(page)
    table(dataset_dichotomy.sorting(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, dataset_dichotomy)

# %% [markdown]
# ## What differs from the reference study

# %%
say(prose.differences(page, ("shots", "labels", "stop"), *dataset_dichotomy.differences(page)))

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "A dataset that a model of this size does not learn may be learned by a larger one, or "
        "from more text.",
    )
)

# %% [markdown]
# ## Change this
#
# What stays when the rule is another? Here with a margin of .1: the larger it is, the fewer effects
# are beyond it, and the more are too small to count. Change `margin`, or name datasets in `sets`,
# and run the cell, or set both above and run the whole notebook. `scores` is an ordinary DataFrame:
# any recipe, set or checkpoint is a filter away.

# %%
table(answers.compared(dataset_dichotomy, page, page.otherwise(margin=0.1, sets=[])))
