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
# # 3. Task format: does fine-tuning fit a model to one format, and pre-training loosen that?

# %% tags=["parameters"]
study = "quick"  # a file under params/, without its ending
checkpoint = "all"  # "all", or the name of one checkpoint, for example "step-100"
margin = 0.05  # the smallest change that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import task_format
from pretune.report import answers, behaviour, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "03_task_format", checkpoint, margin, sets)
answers.summary(page, task_format)

# %% [markdown]
# ## The question
#
# A model is tuned on prompts of one form. Asked the same question in other words, it may fail,
# because what it learned was the form. Sun & Dredze ("Amuro & Char", arXiv 2408.06663) found this
# strongest for early checkpoints and read it as a benefit of pre-training: later checkpoints, tuned
# in the same way, cope with other formats.
#
# **What would count as an answer.** For the claim: after tuning, the training format scores more
# than .05 above another format, beyond the gap that the untuned model already has; and that gap
# shrinks by more than .05 from the first checkpoint at which tuning works to the last ones. Against
# it: gaps within ±.05, or gaps that stay. A gap near zero at an early checkpoint is no evidence of
# flexibility when the tuned model has learned nothing yet.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# **Claim 3a.** Tuning fits the model to the training format. **Rule, fixed before the data.** Over
# the datasets whose tuned default score at late beats no skill by .05, the mean of [default −
# other] after tuning minus the same before lies beyond .05 with its 95 % interval; *instruct* and
# *io* apart.
#
# **Claim 3b.** More pre-training loosens it. **Rule.** The gap at the first checkpoint where the
# tuned default score beats no skill by .05 with its interval, on half A of the items, minus the gap
# at late, both on half B, lies beyond .05. Asked where such a checkpoint lies before late.
#
# Shots in the other format may teach the format, so the gap is also shown without them.

# %%
say(prose.intervals(page))

# %% [markdown]
# ## What was measured
#
# Three formats of the same items: *default*, on which models are tuned; *instruct*, a plain request
# in a sentence; *io*, the bare inputs without a word of instruction. Examples, where
# there are any, are shown in the same format. The datasets are those that a recipe tunes on, and
# their companions in the same domain.

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
# The tuned score in each format. The naive reading compares the curves; solid lines are tuned,
# dashed ones untuned, and the dotted one is the score of the best answer that needs no skill.

# %%
if page.is_whole:
    task_format.show_formats(page)
else:
    behaviour.show_checkpoint(page)
table(task_format.by_format(page))

# %% [markdown]
# ## Why that is not enough
#
# A low score in another format can mean that the skill is bound to the format, or merely that the
# model gives one answer to everything there. The share of the most frequent prediction tells the
# two apart. And part of the gap is not tuning's doing: the untuned model, too, finds some formats
# harder. So the untuned gap is subtracted.

# %%
if page.has_items:
    table(task_format.label_shares_other(page))

# %%
behaviour.show_prompts(page, list(task_format.recipes_of(page).values()))

# %% [markdown]
# ## The comparison

# %%
if page.is_whole:
    table(task_format.gaps(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, task_format)

# %% [markdown]
# ## What differs from the reference study

# %%
say(
    prose.differences(
        page, ("prompt_end", "shots", "own_sets", "labels"), *task_format.differences(page)
    )
)

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "Two other formats are not all formats; a template that nobody thought of may be harder "
        "or easier than both.",
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
table(answers.compared(task_format, page, page.otherwise(margin=0.1, sets=[])))
