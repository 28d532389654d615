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
# # 9. Tuning data: how many examples, and which?

# %% tags=["parameters"]
study = "data"  # a file under params/, without its ending
checkpoint = "all"  # this finding has a page of all checkpoints only
margin = 0.05  # the smallest change of a score that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis import treatments
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import tuning_data
from pretune.report import answers, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "09_tuning_data", checkpoint, margin, sets)
answers.summary(page, tuning_data)

# %% [markdown]
# ## The question
#
# *LIMA* (arXiv 2305.11206) tunes a model on a thousand examples and concludes that knowledge is
# learnt in pre-training, while tuning teaches a style. *AlpaGasus* (2307.08701) and *LIMIT*
# (2311.13133) find that a few thousand good examples do as well as many. *The False Promise*
# (2305.15717) finds that imitating a stronger model brings its tone, and not its facts. Each looks
# at one checkpoint of a size, and lets more examples be more steps. Raghavendra et al. (2410.03717)
# find that style saturates within about a hundred examples and reasoning does not.
#
# So: how does the tuned score depend on examples and pre-training *together*? Is it the form of
# answers that few examples teach, and what they say that takes many? How many examples is a
# doubling of pre-training worth? And what are wrong, chosen, or narrow examples worth?
#
# **What would count as an answer.** Form and content scored apart, over examples, at equal steps: a
# form that is there after a tenth of the examples, while content still rises. A surface over both,
# whose slopes have a ratio with an interval.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# A model writes its answers, greedily, asked as it was tuned. The *form* of an answer is right
# where it ends by itself and, among given answers, names one and no other; of text, where it is at
# least half and at most twice as long as the right one. Its *content* is the score of answers in
# the right form: the share that is right, or ROUGE-L.
#
# **Claim 9a.** Form needs few examples, content many. **Rule, fixed before the data.** What the
# last tenfold of examples adds to content, minus what it adds to form, lies above .05 with its 95 %
# interval: equal steps, at late, mean over sets. Asked of sets on which, before and after it, a
# fifth of every model's answers has the right form, and whose content, mean of both, beats no skill
# by the margin.
#
# **Claim 9b.** Pre-training replaces examples. **Rule.** The slope of the tuned score per doubling
# of tokens, over that per doubling of examples, lies above .25 with its interval. Both slopes are
# of one least-squares plane for each set, over logarithms, without the corners of its surface (late
# checkpoints are one end); equal steps, means over sets of one task whose tuned score beats no
# skill. Asked where the slope of examples lies above nothing with its interval.
#
# **Claim 9c.** Few clean examples beat many noisy ones. **Rule.** The tuned score with an eighth of
# the examples, all right, minus that with all of them, two fifths of which are wrong, lies above
# .05 with its interval: equal steps, at late, mean over sets.

# %% [markdown]
# ## What was measured
#
# The same recipes with more and more examples, in two arms: each example goes over as often, so
# that more of them are more steps; or all take equally many steps. Fewer examples are the first of
# more. What was done to the rows of other recipes (wrong answers, a part of them chosen, one kind
# of request, rows of other sets mixed in, answers of another model) is said where they are shown.
# After conversations, sets that ask for text are asked in chat markup, and their mean is shown.
# *Early* is the first of the checkpoints, *late* the mean of the last, neighbouring ones.

# %%
say(f"{prose.asked(page)} {prose.intervals(page)}")
material.introduce(page)

# %% [markdown]
# Every number below is computed from this table and from the rows of the measure `writing`, which
# `page.measured("writing")` gives: a row for each answer that a model wrote where answers are
# given.

# %%
scores = page.frame()
material.head(scores)

# %% [markdown]
# ## A first look
#
# The usual figure: more examples, as often each. What rises here are examples and steps together.

# %%
tuning_data.show_slices(page, "epochs")

# %% [markdown]
# ## Why that is not enough
#
# A few examples that go over as often as many are a few steps, in which a model can hardly move.
# With as many steps for each number of examples, what is left is what more examples give.

# %%
tuning_data.show_slices(page, "steps")

# %% [markdown]
# A score cannot be right where the answer has no form. So form and content apart, in equal steps:

# %%
tuning_data.show_form_and_content(page)

# %% [markdown]
# The fewest examples with which each is within .02 of the most that any number gives:

# %%
table(tuning_data.saturation(page))

# %% [markdown]
# ## The comparison
#
# What the last tenfold of examples adds, at late:

# %%
table(tuning_data.tenfold(page))

# %% [markdown]
# Slopes of the surface above, per doubling, and their ratio: how many doublings of examples one
# doubling of pre-training is worth.

# %%
table(tuning_data.exchanges(page))

# %% [markdown]
# Is the surface a product or a sum? Two laws of the loss on right answers, forced on the model:
# *multiplicative*, `A X^-a D^-b + E` (Zhang et al., arXiv 2402.17193), and *additive*,
# `A X^-a + B D^-b + E`, of tokens X and examples D. How far each is off, root mean square in nats a
# token, at cells that it was not fitted to: each left out by itself, and the corners left out
# together. A law says something where it is off by less than the cells spread; where it is not, its
# exponents are left out.

# %%
table(tuning_data.laws(page))

# %% [markdown]
# Which examples? Wrong answers, beside as many and beside an eighth as many that are all right; and
# a part chosen by its length or by how likely the untuned model finds it, beside as many that were
# not chosen.

# %%
table(treatments.quality(page))

# %% [markdown]
# Requests that begin with the same words, beside all kinds, at as many examples:

# %%
table(treatments.variety(page))

# %% [markdown]
# Mixtures: the rows of one skill grow, those of the others stay as many, and are a smaller share of
# equally many steps. Scores of every skill at late.

# %%
table(treatments.mixtures(page))

# %% [markdown]
# Imitation: students are tuned on what a tuned later checkpoint answers to questions that it was
# not tuned on, and asked others. Do they take over its form, its facts, or both? Shown is the score
# of all answers, in the right form or not.

# %%
tuning_data.show_imitation(page)

# %% [markdown]
# ## What to take home
#
# From each checkpoint, so many examples get within .02 of the most that any number gives, in equal
# steps; no number where even the most does not beat no skill by the margin.

# %%
table(tuning_data.to_take_home(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, tuning_data)

# %% [markdown]
# ## What differs from the reference study

# %%
say(prose.differences(page, (), *tuning_data.differences(page)))

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "Every recipe keeps one learning rate over all numbers of examples. In equal steps few "
        "examples go over often, and what is lost there may be overfitting. Form is what can be "
        "counted: an end, a length, the name of an answer; tone is not.",
    )
)

# %% [markdown]
# ## Change this
#
# What stays when a set is left out? Change `sets` and run the cell, or set it above and run the
# whole notebook. `scores` is an ordinary DataFrame, and so is `page.measured("writing")`.

# %%
table(answers.compared(tuning_data, page, page.otherwise(margin=0.1, sets=[])))
