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
# # 2. Latent benefits: does more pre-training help in a way that only fine-tuning shows?

# %% tags=["parameters"]
study = "quick"  # a file under params/, without its ending
checkpoint = "all"  # "all", or the name of one checkpoint, for example "step-100"
margin = 0.05  # the smallest change that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis import results
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import latent_benefits
from pretune.report import answers, behaviour, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "02_latent_benefits", checkpoint, margin, sets)
answers.summary(page, latent_benefits)

# %% [markdown]
# ## The question
#
# Some datasets stay flat along pre-training: asked from a few examples, a late checkpoint answers
# them no better than an early one. Sun & Dredze ("Amuro & Char", arXiv 2408.06663) report that
# fine-tuning brings out a difference that was hidden: tuned in the same way, the later checkpoint
# does better. If so, pre-training taught something that few-shot scores cannot see.
#
# **What would count as an answer.** For the claim: on datasets that stay flat, the tuned score
# rises from the first checkpoint to the last ones by more than .05 beyond whatever the untuned
# score does. Against it: tuned scores that are as flat as the untuned ones. A high tuned score
# alone proves nothing: if tuning reaches it from the first checkpoint as well, tuning taught it,
# not pre-training.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# **Claim 2a.** Pre-training helps sets that stay flat, in a way that shows only after tuning.
# **Rule, fixed before the data.** The mean, over not-learned datasets with training data whose
# tuned score at late beats no skill by .05, of [tuned late − tuned early] − [base late − base
# early] lies beyond .05 with its 95 % interval.
#
# **Claim 2b.** Tuning helps not-learned sets more than learned ones, by the same procedure on both.
# **Rule.** The difference between the groups of the mean change at late, under task tuning, lies
# beyond .05; shown also as a share of the headroom, and under instruction tuning. Asked where both
# groups have two sets with training data, and are tuned on equally many examples.
#
# **Claim 2c.** More pre-training keeps helping to the end. **Rule.** The slope of the tuned score
# of not-learned sets per doubling of tokens over the last third of the run lies beyond .05; an
# interval below 0 is reported as a turn-down. Asked where that third holds four checkpoints.
#
# *Early* is the first checkpoint after step 0, *late* the mean over the last neighbouring ones.

# %%
say(prose.intervals(page))

# %% [markdown]
# ## What was measured
#
# Base and tuned models are scored on the same items; with how many examples each is asked is said
# below, and both with as many, and both without, stand beside. The groups, *learned* and *not
# learned* in pre-training, are those of the first finding.

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
# ## A first look: before and after
#
# The naive reading compares the tuned score with the untuned one. A wide gap looks like a benefit;
# whether it is one of *pre-training* depends on whether it widens.

# %%
if page.is_whole:
    latent_benefits.show_curves(page)
else:
    behaviour.show_checkpoint(page)

# %% [markdown]
# ## Why that is not enough
#
# A gain can be many things. The model may have learned to stop, to write a label at all, or to lean
# less on one label; none of these is knowledge. So the gain at late is taken apart: the score; the
# score when each label's likelihood without the question is subtracted; how likely the gold answer
# became when the format is forced upon the model (nats per token); and, for generation, how often
# the output ends by itself.

# %%
calibrated = results.rescored(page, "calibrated")
if page.is_whole and page.has_items:
    table(latent_benefits.parts_of_a_gain(page, calibrated))

# %% [markdown]
# The first item of each dataset that is tuned on, in the study's fixed order: the prompt, the
# answer of the untuned model and that after each recipe.

# %%
behaviour.show_prompts(page, list(results.recipes(page).values()))

# %% [markdown]
# ## The comparison

# %%
if page.is_whole:
    table(latent_benefits.benefits(page, calibrated))
    say(latent_benefits.biggest(page))

# %% [markdown]
# Both groups under both procedures. Learned sets have less headroom, so the change is shown raw and
# as a share of it.

# %%
if page.is_whole:
    table(latent_benefits.procedures(page, calibrated))

# %% [markdown]
# ## At every learning rate
#
# A rate that is too high for a late checkpoint, or too low for an early one, can make or hide a
# benefit. The difference in differences at each rate of the grid follows (last checkpoint of the
# grid against its first, one seed of each run, interval over items; the star marks the rate that
# was chosen on rows of the train split that nothing was tuned on). Empty where the study has no
# grid.

# %%
if page.is_whole:
    table(latent_benefits.rates(page))

# %% [markdown]
# ## The end of the run
#
# Whether the last third of pre-training still helps: the slope of the score, untuned and tuned, per
# doubling of tokens. A *rise* has its interval above .05, a *turn-down* below 0, a *plateau* within
# ±.05. Empty where that third holds fewer than four checkpoints.

# %%
if page.is_whole:
    table(latent_benefits.end_of_run(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, latent_benefits)

# %% [markdown]
# ## What differs from the reference study

# %%
say(
    prose.differences(
        page, ("shots", "own_sets", "labels", "stop"), *latent_benefits.differences(page)
    )
)

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "A benefit that shows after this much tuning may vanish with more examples: enough tuning "
        "teaches a small task from any start.",
        "Headroom is taken as known when a change is divided by it, so those intervals are too "
        "narrow where the base score is uncertain.",
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
table(answers.compared(latent_benefits, page, page.otherwise(margin=0.1, sets=[])))
