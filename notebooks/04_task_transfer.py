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
# # 4. Task transfer: what does tuning on classification do to generation, and the reverse?

# %% tags=["parameters"]
study = "quick"  # a file under params/, without its ending
checkpoint = "all"  # "all", or the name of one checkpoint, for example "step-100"
margin = 0.05  # the smallest change that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import task_transfer
from pretune.report import answers, behaviour, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "04_task_transfer", checkpoint, margin, sets)
answers.summary(page, task_transfer)

# %% [markdown]
# ## The question
#
# Fine-tuning on one task changes what a model does on others. Sun & Dredze ("Amuro & Char", arXiv
# 2408.06663) report that tuning on classification destroys generation (a mean relative change of
# −61.4 %) while tuning on generation leaves classification alone (+0.3 %). The first number is a
# mean of ratios, one of which can carry it; the second is about scores that were a constant answer
# before tuning and had nothing to lose.
#
# **What would count as an answer.** For the claim: over generation sets and checkpoints, the summed
# score after tuning on classification is more than a fifth below that of the untuned model. Against
# it: a smaller change. For the other direction, a set counts only if the untuned model answers it
# better than no skill: else there is nothing to lose.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# **Claim 4a.** Tuning on classification destroys generation. **Rule, fixed before the data.** One
# minus the ratio of sums of scores, tuned over untuned, over checkpoints and the generation sets
# that the untuned model answers better than no skill by .05 at late, lies beyond .2 with its 95 %
# interval. Where there is no such set: nothing to lose.
#
# **Claim 4b.** Tuning on generation leaves classification. **Rule.** The mean change at late of
# sets on which the untuned model beats no skill by .05 lies above −.05 with its interval. Where it
# beats no skill nowhere: nothing to lose.
#
# **Claim 4c.** What 4a loses is the habit, not the skill. **Rule.** The change of the
# log-likelihood per token of the gold output, tuned minus untuned at late, lies above −.05 nats
# with its interval: not lower. Asked where 4a is supported.
#
# The interval of the ratio comes from its linear form (delta method).

# %%
say(prose.intervals(page))

# %% [markdown]
# ## What was measured
#
# Every model that was tuned on one dataset is scored on all datasets that any recipe tunes on.
# Questions with given answers count as classification: an answer is chosen, not written.

# %%
say(f"{prose.tuned(page)} {prose.asked(page)}")
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
# The change of score, tuned minus untuned, for every training set and test set. The diagonal is the
# gain on the own task; the blocks off it are transfer.

# %%
task_transfer.show_matrix(page)

# %%
if not page.is_whole:
    behaviour.show_checkpoint(page)

# %% [markdown]
# ## Why that is not enough
#
# Ratios of small numbers are wild. A generation score of .02 that falls to .01 is a loss of half,
# and a mean of such ratios says little. The table shows, beside the mean of ratios as published,
# their median and the ratio of sums, which one cell cannot carry. And a score of zero can be a
# model that has lost the skill, or one that has only picked up the habit of answering with a single
# label. Length, what ends the output, and the likelihood of the gold text when it is forced upon
# the model tell habit and skill apart.

# %%
table(task_transfer.over_checkpoints(page))

# %%
if page.has_items:
    table(task_transfer.outputs(page))

# %%
behaviour.show_prompts(page, list(task_transfer.recipes(page).values()))

# %% [markdown]
# ## The comparison

# %% [markdown]
# ## Answer

# %%
answers.answer(page, task_transfer)

# %% [markdown]
# ## What differs from the reference study

# %%
say(
    prose.differences(
        page, ("stop", "shots", "own_sets", "labels"), *task_transfer.differences(page)
    )
)

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page, "ROUGE-L counts shared words in order. It does not know whether a sentence is true."
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
table(answers.compared(task_transfer, page, page.otherwise(margin=0.1, sets=[])))
