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
# # 7. Capability dynamics: what moves together, and what does an early score say?

# %% tags=["parameters"]
study = "dynamics"  # a file under params/, without its ending
checkpoint = "all"  # this finding has a page of all checkpoints only
margin = 0.05  # the smallest change that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis import several
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import capability_dynamics
from pretune.report import answers, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "07_capability_dynamics", checkpoint, margin, sets)
answers.summary(page, capability_dynamics)

# %% [markdown]
# ## The question
#
# Scores of many datasets rise while a model is pre-trained, and they rise in models of all sizes.
# *The Fine Line* (arXiv 2404.01204) shows such curves of public models up to 67 B weights and
# reports that specific scores have similar dynamics at all sizes and that sets of one domain
# promote each other. It prints no number for either: likeness is judged by eye. Whoever chooses
# data or recipes by a small model, or by an early checkpoint, counts on both.
#
# **What would count as an answer.** Two rising curves always correlate, so levels say nothing. What
# could fail: that scores of one domain *move* together, from one checkpoint to the next, more than
# scores of two domains, and more than the common fall of the loss makes them. That two sizes at
# *equal loss* score alike. That an early score puts models in the order that tuning gives them in
# the end.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# A *model* is one run of one size. Intervals are over models, of which each is left out once
# (jackknife within sizes).
#
# **Claim 7a.** Sets of one domain move together, beyond what held-out loss explains. **Rule, fixed
# before the data.** Of the increments of scores between neighbouring checkpoints, less what is
# linear in the increment of the loss: the mean correlation of two sets of one domain minus that of
# two sets of two domains lies above .1 with its 95 % interval. Asked of at least 8 checkpoints and
# 3 runs of each size. Beside it: how large it is where domains are dealt to the sets at random.
#
# **Claim 7b.** The curve of a set against held-out loss is the same at every size. **Rule.** The
# mean over sets of the absolute difference of two sizes at equal loss lies below .05 with its
# interval; it is printed with a minus, so that up is what is claimed. Noise makes it larger, never
# smaller. Asked of at least 3 sizes whose losses overlap.
#
# **Claim 7c.** An early score predicts the tuned one. **Rule.** The share of pairs of models that
# the untuned score puts, at a quarter of the tokens, in the order of their final tuned scores, mean
# over the sets that are tuned on, lies above .65 with its interval. By chance it is .5; but where
# one size is simply better, its size alone says much, and so that stands beside it, as do pairs of
# one size. Asked of at least 9 models.

# %% [markdown]
# ## What was measured
#
# Every untuned model is asked all sets at every checkpoint; at the end each is tuned on single sets
# and asked these again.

# %%
say(f"{capability_dynamics.runs_said(page)} {prose.asked(page)}")
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
# Score against tokens. Where a larger model learns from fewer, its curves stand to the left.

# %%
capability_dynamics.show_curves(page, "tokens")

# %% [markdown]
# ## Why that is not enough
#
# By tokens, sizes differ because one is ahead. By held-out loss, how far ahead it is drops out:
# what is left is whether the same loss means the same skills.

# %%
capability_dynamics.show_curves(page, "loss")

# %% [markdown]
# And levels of sets that rise correlate, whatever these ask. The map on the left is of levels; the
# one on the right correlates what moves from one checkpoint to the next, beyond the loss.

# %%
capability_dynamics.show_map(page)

# %% [markdown]
# ## The comparison
#
# How far two sizes are apart at equal loss, set by set:

# %%
table(capability_dynamics.apart(page).rename(columns=page.title).T)

# %% [markdown]
# How early is early enough? The share of pairs of models in the right order, for the untuned score
# of the set, the log-likelihood of its gold answer, held-out loss, and held-out loss extrapolated
# to the end by a power law (the first of two steps from loss to score; the second keeps order).

# %%
table(capability_dynamics.how_early(page).rename(index="{:.0%}".format))

# %% [markdown]
# **To take home**: to compare two models that are to be tuned on a set, score this, after this
# share of the tokens: from there on four of five pairs are in the right order.

# %%
table(capability_dynamics.to_take_home(page))

# %% [markdown]
# Which sets are worth their time: what models differ by at late, over what one model moves by from
# one late checkpoint to the next.

# %%
table(several.signal_and_noise(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, capability_dynamics)

# %% [markdown]
# ## What differs from the reference study

# %%
say(prose.differences(page, (), *capability_dynamics.differences(page)))

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "Increments hold the noise of their two checkpoints, which makes correlations smaller, "
        "within domains and across. Sets of one training split (MNLI and MNLI mismatched) have the "
        "same examples in front of their questions, and share what noise these bring.",
    )
)

# %% [markdown]
# ## Change this
#
# What stays when the rule is another? Here with a margin of .1 for 7b. Change `margin`, or name
# datasets in `sets`, and run the cell, or set both above and run the whole notebook. `scores` is an
# ordinary DataFrame: any size, set or checkpoint is a filter away.

# %%
table(answers.compared(capability_dynamics, page, page.otherwise(margin=0.1, sets=[])))
