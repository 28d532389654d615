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
# # 6. The published tables: what they say, and what they cannot say
#
# Sun & Dredze released the score tables behind "Amuro & Char" (arXiv 2408.06663). Few studies do,
# and it makes this page possible: every number that they printed can be recomputed, and what it
# rests on can be seen. The other pages of this report put the scores through the same notebooks as
# a new run; this one goes through the printed numbers one by one.
#
# **What would count as an answer.** A printed number holds if it comes out of the tables to the
# digits given. What it says holds if it does not hang on one cell, on hidden labels, on a constant
# answer, or on a difference smaller than that between two copies of nearly the same model.

# %% tags=["parameters"]
study = "published"  # a file under params/, without its ending
checkpoint = "all"  # this page is on all checkpoints

# %%
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import dataset_dichotomy, published_tables
from pretune.report import material
from pretune.report.open import open_results

use_theme()
page = open_results(
    study, "06_published_tables", checkpoint
)  # fetches the tables unless they are there

# %%
say(material.described(page))
table(material.provenance(page))

# %%
say(material.completeness(page))
say(published_tables.unused(page))

# %% [markdown]
# ## The gains of the two groups (Table 6)
#
# The mean of tuned minus untuned at every checkpoint. The group "learned in fine-tuning" has seven
# pairs, the group "learned in pre-training" six, because SciQ stands in it twice. Counted once, its
# late gains shrink. The printed means come out to the last digit.

# %%
table(published_tables.group_gains(page))

# %% [markdown]
# What the comparison cannot say: the first group was tuned on its own training rows and scored by
# the first token or ROUGE-L; the second was tuned on instructions, never on its own rows, and
# ranked whole answers. Group and procedure cannot be told apart.
#
# ## Transfer across kinds of task (Section 4.3)
#
# Both printed means come out. The first is a mean of ratios, and one cell carries much of what it
# lacks: a base score of nearly nothing in the denominator. The median and the ratio of sums, which
# no cell can carry, say that the loss is larger than printed. The second is about scores that were
# a constant answer before tuning (below): there was nothing to lose.

# %%
table(published_tables.transfer_ratios(page))

# %% [markdown]
# ## Other domains of the task (Figure 5)
#
# The figure draws bars; the means that they stand for come out. The one clear loss is that of
# paraphrase, and it rests on QQP and STS-B.

# %%
table(published_tables.domain_changes(page))

# %% [markdown]
# The labels of those two test splits are hidden, all of them -1, and were read as "no". A score
# there is the share of the answer "no", and a fall means that the tuned model says "yes" more
# often. So the bar for paraphrase is void. What remains of the claim of forgetting: inference
# gains, question writing hardly moves and differs by set, summaries do not move, and their prompts
# exceed the context.

# %%
table(published_tables.shares_of_no(page))

# %% [markdown]
# ## Prompt formats (Figures 2 and 14)
#
# The own-task score after tuning, training format minus each other. The claim that matching the
# format matters most for early checkpoints holds on the mean relative gap to *instruct*; it does
# not fall steadily, and XSum shows no narrowing.

# %%
table(published_tables.format_gaps(page))

# %% [markdown]
# ## Scores that are a constant answer
#
# Untuned, MNLI and PAWS score what a constant answer scores, to three digits, at many checkpoints.
# Whether a model that always says the same has learned nothing of the task, or is merely asked in a
# way that hides it, the tables cannot tell: they hold no predictions.

# %%
table(dataset_dichotomy.constant_scores(page))

# %% [markdown]
# ## A replicate for free
#
# The checkpoints 738,000 and main lie twenty optimizer steps apart, less than a ten-thousandth of
# the run. What differs between them is noise: of the tuning, of the few steps, of the shots.

# %%
say(published_tables.noise(page))
table(published_tables.replicates(page).head(12))

# %%
table(published_tables.effects_beyond_noise(page))
say(published_tables.what_stands_out(page))

# %% [markdown]
# Where a gain is beyond the noise, that tuning brings out what few-shot scores do not show holds.
#
# ## What was not measured
#
# Between 75 billion and 1,434 billion tokens there is no checkpoint, and most of every change falls
# into that stretch. Where scores level off cannot be said; "after 342,000 steps" names the first
# checkpoint beyond the hole.

# %%
published_tables.show_stretch(page)
say(published_tables.late_boolq(page))

# %% [markdown]
# ## The end of the run
#
# Tuned scores fall towards the end while untuned ones stay. Later work on other models reports such
# a turn-down (Springer et al., arXiv 2503.19206). An earlier version of this report took the noise
# of checkpoints from all scores of the last pair at once and called the slope of claim 2c a
# turn-down. That was too sure: the noise rests on one pair of checkpoints, and by the claim's own
# scores it is undecided.

# %%
table(published_tables.end_of_the_run(page))
say(published_tables.turn_down(page))

# %% [markdown]
# ## What the tables lack
#
# Scores that this report asks for and the tables do not hold. They are left out of every mean and
# figure above; nothing stands in for them.

# %%
table(material.holes(page))

# %% [markdown]
# ## What this does not show
#
# - There are no single answers, so no label shares, no calibration, no paired intervals; scores are
#   taken as unpaired, which makes intervals too wide.
# - One seed of tuning: the pair of checkpoints stands in for seeds, and stands in poorly.
# - The shots were the first items of the scored file and stayed in it, and many prompts for
#   summaries exceed the context of 2,048 tokens. The tables carry both, and nothing in them can
#   take it out.
# - Rates were chosen on the final model only, and XSum was tuned at a tenth of the rate of the
#   others.
