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
# # 8. Distribution shift: how far does tuning move a model, and does that say what it forgets?

# %% tags=["parameters"]
study = "shift"  # a file under params/, without its ending
checkpoint = "all"  # this finding has a page of all checkpoints only
margin = 0.05  # the smallest change of a score that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import distribution_shift
from pretune.report import answers, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "08_distribution_shift", checkpoint, margin, sets)
answers.summary(page, distribution_shift)

# %% [markdown]
# ## The question
#
# A tuned model says something else than the untuned one would. *The Unlocking Spell* (Lin et al.,
# arXiv 2312.01552) lets a tuned model answer and asks, token by token, where the untuned one would
# have said the same: nearly everywhere, but for words of style. *A Closer Look at the Limitations
# of Instruction Tuning* (Ghosh et al., arXiv 2402.05119) finds that with adapters (LoRA) the two
# differ in the first tokens only, that tuning all weights moves every token, and that such models
# copy from what they were tuned on. Both look at one checkpoint, and the second compares the two
# methods at one learning rate, which is not the best of either. *RL's Razor* (arXiv 2509.04259)
# reports that how far a model moved predicts what it forgets.
#
# **What would count as an answer.** If pre-training brings a model nearer to what tuning asks of
# it, tuning moves a later checkpoint less. If adapters are gentle by themselves, and not because
# they were tuned less, they move a model less where both fit their rows *equally well*. If distance
# is what matters, a law through some recipes predicts what others forget.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# The tuned model answers greedily; the untuned one reads that answer. A position is *unshifted*
# where the untuned model finds the token likeliest, *marginal* where it ranks it second or third,
# else *shifted*. Distances are over the whole vocabulary.
#
# **Claim 8a.** The better pre-trained, the less tuning moves. **Rule, fixed before the data.** The
# share of shifted positions, early minus late, lies above .02 with its 95 % interval. Asked of sets
# whose tuned score beats no skill by the margin at late.
#
# **Claim 8b.** At equal gain, adapters move the distribution less than all weights. **Rule.**
# KL(base, tuned) on own answers, all weights minus LoRA, at a tuning loss that both reach, lies
# above .02 nats a position with its interval, mean over sets of one task and ranks. The loss is
# that of the method which fits less well at its best rate; the other's distance there lies on a
# straight line between two of its rates. Losses are matched within each run, so that their doubt is
# in the spread of runs; of a single run its last steps are resampled.
#
# **Claim 8c.** How far a model moved says how much it forgot. **Rule.** R2 of lost knowledge, on
# recipes that were left out, by a quadratic law of KL(base, tuned), lies above .5 with its
# interval. The law is of all other recipes, rates, checkpoints and runs, at checkpoints that know
# what is known at late; the interval is over recipes and runs. Asked of at least 8 recipes and
# rates. Beside it: the same with all recipes of a set left out together, which have rows in common.
#
# **Claim 8d.** Tuning all weights copies words of the tuning rows. **Rule.** The share of words of
# answers to *other* requests that stand in tuning rows, and neither in the prompt nor in the gold
# answer, all weights minus LoRA at a tuning loss both reach, lies above .02 with its interval.
# Asked of recipes of conversations.

# %% [markdown]
# ## What was measured
#
# Every recipe answers what it was tuned on; after conversations, sets that ask for text, in chat
# markup. Beside it stand scores on its own set, on knowledge, and the loss on held-out text.

# %%
say(f"{prose.asked(page)} {prose.intervals(page)}")
material.introduce(page)

# %% [markdown]
# Every number below is computed from this table and from the rows of the measure `divergence`,
# which `page.measured("divergence")` gives: a row for each answer, with a list of positions.

# %%
scores = page.frame()
material.head(scores)

# %% [markdown]
# ## A first look
#
# Shares of unshifted, marginal and shifted positions, by recipe, at the first checkpoint and at
# late ones; and how far the two models are apart, in nats a position, on own answers, on right ones
# and on text.

# %%
table(distribution_shift.shares(page))

# %% [markdown]
# What that means: the first answers of every recipe in the study's fixed order, of a mixture some
# of each set it is asked. What the untuned model finds likelier stands below a token that it would
# not have said.

# %%
distribution_shift.show_answers(page)

# %% [markdown]
# Where in the answer it happens, and how far it is:

# %%
distribution_shift.show_positions(page)

# %% [markdown]
# And to which words, by shares of all positions. A word is taken to be of the prompt where it
# stands there, else of the tuning rows where it stands in one of their answers.

# %%
table(distribution_shift.by_kind(page))

# %% [markdown]
# ## Why that is not enough
#
# Each method stands there at the rate that the study uses for it. A gentler rate moves a model
# less, and teaches it less: along the rates of a method, distance rises as tuning loss falls. Two
# methods differ where their lines do.

# %%
distribution_shift.show_methods(page)

# %% [markdown]
# ## The comparison
#
# All weights minus LoRA, nats a position: each at its rate, and where both fit equally well. Beside
# it, how far a straight line is off at a rate that lies between two of those that were tried.

# %%
table(distribution_shift.compared(page))

# %% [markdown]
# Does it matter? What a model forgot, against how far it moved.

# %%
distribution_shift.show_law(page)

# %% [markdown]
# The same as a number, R2 on recipes that were left out. Below nothing, the law of the others says
# less than their mean does.

# %%
table(distribution_shift.laws(page))

# %% [markdown]
# Copying: words of answers to other requests that come from the tuning rows alone.

# %%
table(distribution_shift.copying(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, distribution_shift)

# %% [markdown]
# ## What differs from the reference study

# %%
say(prose.differences(page, (), *distribution_shift.differences(page)))

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "Greedy answers only: what a model would say at random is not looked at. A tuned model is "
        "read on its own words, so two methods are read on words of their own each. Where prompts "
        "and tuning rows share a small vocabulary, copying says little.",
    )
)

# %% [markdown]
# ## Change this
#
# What stays when a set is left out? Change `sets` and run the cell, or set it above and run the
# whole notebook. `scores` is an ordinary DataFrame, and so is `page.measured("divergence")`.

# %%
table(answers.compared(distribution_shift, page, page.otherwise(margin=0.1, sets=[])))
