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
# # 11. Tuning methods: all weights, some, few, none of them; and preferences

# %% tags=["parameters"]
study = "methods"  # a file under params/, without its ending
checkpoint = "all"  # this finding has a page of all checkpoints only
margin = 0.05  # the smallest change of a score that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis import preferences
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import tuning_methods
from pretune.report import answers, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "11_tuning_methods", checkpoint, margin, sets)
answers.summary(page, tuning_methods)

# %% [markdown]
# ## The question
#
# "Fine-tuning" may move every weight of a model, those of its last layers, a few thousand that are
# added to it, or nothing but what stands before its prompt. Each is said to forget less than the
# one before: *LoRA Learns Less and Forgets Less* (Biderman et al., arXiv 2405.09673). But a method
# that learns less has less to forget for, and one that is tuned at the rate of another is not
# tuned: the best rate of LoRA is about ten times that of all weights, that of a learned prompt a
# hundred times. A hundredth of pre-training text mixed in is said to stop forgetting by itself
# (Bethune et al., arXiv 2502.06042), which would be cheaper than any adapter. And after tuning
# often comes another: of two answers the better one is made likelier (Rafailov et al., arXiv
# 2305.18290).
#
# **What would count as an answer.** If few trained weights are gentle by themselves, methods that
# train fewer forget less *where all reach the same score*. If text is what is lacking, all weights
# with a little of it forget half as much as without. If preferences come for free, the better
# answer becomes the likelier one, and the task stays.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# What is lost is *knowledge*: the score on questions about what was read in pre-training, untuned
# minus tuned, of sets that the untuned model answers better than no skill by the margin.
#
# **Claim 11a.** At equal own score, fewer trained weights forget less. **Rule, fixed before the
# data.** The least-squares slope of the loss of knowledge over the logarithm of trained weights
# lies above .02 for ten times as many, with its 95 % interval. Along its rates, from the lowest to
# the one of the best own score, each method is taken where it has four fifths of the best own score
# of all weights, on a straight line between two rates, within each run. The interval holds the
# doubt of items, of runs, and of methods, which lie off the line. Asked of sets on which at least 4
# methods of different sizes have that score in every run, and less at their lowest rate; mean over
# these.
#
# **Claim 11b.** A hundredth of pre-training text mixed in halves forgetting. **Rule.** Of what all
# weights lose of knowledge at late, the share that is not lost when 1 % of the rows are text, of
# the kind that was read in pre-training, lies above .5 with its interval; 5 % is judged beside it.
# Asked where more than the margin is lost.
#
# **Claim 11c.** Preference tuning after tuning raises what it is for and keeps the task. **Rule,
# both.** The share of pairs whose better answer is the likelier one, after minus before, lies above
# the margin with its interval; and the score of what was tuned on first, after minus before, lies
# above minus the margin, where it beats no skill by the margin before. Asked where more than half
# of the pairs are right after it.

# %% [markdown]
# ## What was measured
#
# Every method tunes on the same rows, at several rates of its own, and is then asked about what it
# was tuned on, knowledge, other tasks and text. Prefixes, prompts and bottlenecks stay in the model
# that is asked: taken out again they leave it untouched, which would be no forgetting at all.

# %%
say(f"{prose.asked(page)} {prose.intervals(page)}")
material.introduce(page)

# %% [markdown]
# Every number below is computed from this table, from the rows of the measure `divergence`, which
# `page.measured("divergence")` gives, and from what records say of each training.

# %%
scores = page.frame()
material.head(scores)

# %% [markdown]
# ## A first look
#
# What each method trains, what is kept of it on the disk, and what it took.

# %%
table(tuning_methods.trained(page))

# %% [markdown]
# What it gives and what it takes at late checkpoints, at the rate that the study uses for it.

# %%
table(tuning_methods.given(page))

# %% [markdown]
# ## Why that is not enough
#
# A method that forgets little may have learnt little, and both depend on its rate. The picture at
# the head of this page has a line for each method along its rates: one is better than another where
# its line runs below.

# %% [markdown]
# ## The comparison
#
# Where methods reach the same own score, what each has lost, over how many weights it trains.

# %%
tuning_methods.show_equal(page)

# %% [markdown]
# Does the order of methods change along pre-training? Each at the rate that the study uses.

# %%
tuning_methods.show_along(page)

# %% [markdown]
# All weights, with text mixed in that is of the kind that was read in pre-training, and was not
# read itself. A share of what is lost is told where something is.

# %%
table(tuning_methods.replaying(page))

# %% [markdown]
# Preferences: before and after. The better answer *gained more* where the tuning made its lead
# larger, which is what the reward that is implied goes by.

# %%
table(preferences.compared(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, tuning_methods)

# %% [markdown]
# What to take, if one thing is wanted, at the rate that the study uses for each:

# %%
table(tuning_methods.take_home(page))

# %% [markdown]
# ## What differs from the reference study

# %%
say(prose.differences(page, (), *tuning_methods.differences(page)))

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "Each method has one size, or a few, and one optimizer. How many weights it trains is not "
        "all that sets it apart from others: where they are may matter as much. Seconds are of "
        "small models, in which what is not trained is computed all the same. Text that is mixed "
        "in tells of the same world, and so may say what is asked.",
    )
)

# %% [markdown]
# ## Change this
#
# What stays when a set is left out? Change `sets` and run the cell.
# `scores` is an ordinary DataFrame, and so is `page.measured("divergence")`.

# %%
table(answers.compared(tuning_methods, page, page.otherwise(margin=0.1, sets=[])))
