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
# # 5. Domain forgetting: what happens to other domains of a task, and to unneeded knowledge?

# %% tags=["parameters"]
study = "quick"  # a file under params/, without its ending
checkpoint = "all"  # "all", or the name of one checkpoint, for example "step-100"
margin = 0.05  # the smallest change that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import domain_forgetting
from pretune.report import answers, behaviour, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "05_domain_forgetting", checkpoint, margin, sets)
answers.summary(page, domain_forgetting)

# %% [markdown]
# ## The question
#
# A model tuned on one dataset of a task may get better at the whole task, or only at that dataset
# and worse elsewhere. Sun & Dredze ("Amuro & Char", arXiv 2408.06663) report losses on other
# domains of the same task; their largest one, for paraphrase, rests on test splits whose labels are
# hidden. Beside the domains there is what the task does not need at all: facts, continuation of
# stories, the language itself.
#
# **What would count as an answer.** For the claim: scores on other domains fall by more than .05
# from untuned to tuned; knowledge that the untuned model has falls by more than .05. Against it:
# smaller changes, or gains. A set on which the untuned model gives a constant answer cannot be
# forgotten.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# **Claim 5a.** Tuning on one domain hurts other domains of the task. **Rule, fixed before the
# data.** Per task, the mean loss at late on the out-of-domain sets that the untuned model answers
# better than no skill by .05 lies beyond .05 with its 95 % interval; public labels only. Where
# there is no such set: nothing to lose.
#
# **Claim 5b.** Tuning hurts knowledge the task does not need. **Rule.** The mean loss over recipes
# and knowledge sets, fact recall among them, lies beyond .05; and, apart, the rise of the loss on
# held-out text lies beyond .05 nats per token. Asked where the untuned model beats no skill by .05.
#
# **Claim 5c.** LoRA forgets less at equal gain. **Rule.** Where the interval of the difference of
# full tuning and LoRA on the same dataset, each at its own rate, lies within ±.05, the loss of
# knowledge after full tuning minus that after LoRA lies beyond .05.
#
# Sets that share their items count once.

# %%
say(prose.intervals(page))

# %% [markdown]
# ## What was measured
#
# For every dataset that is tuned on: its companions in the domain (the same style and topic family)
# and out of it (another topic, another style, or both); sets that ask for what pre-training
# teaches; closed-book recall of facts; and the loss on text. LoRA, which trains small adapters in
# place of all weights, stands beside full tuning where the study has it.

# %%
say(f"{prose.tuned(page)} {prose.asked(page)} {prose.seen(page)}")
material.introduce(page)

# %% [markdown]
# Every number below is computed from this table, with a row for each scored item and model; its
# columns are explained by `help(page.frame)`.

# %%
scores = page.frame()
material.head(scores)

# %% [markdown]
# ## A first look: other domains of the task

# %%
if page.is_whole:
    domain_forgetting.show_domains(page)
else:
    behaviour.show_checkpoint(page)

# %% [markdown]
# ## Why that is not enough
#
# A fall on another domain is forgetting only if there was something to forget. Flat, constant
# answers move by chance from one label to another. So knowledge is counted on sets that the untuned
# model answers better than no skill by .05.
#
# Losses are positive here: a score that falls, or the loss on held-out text that rises.

# %%
table(domain_forgetting.changes(page))

# %%
if page.is_whole:
    domain_forgetting.show_losses(page)
else:
    behaviour.show_prompts(page, list(page.titles))

# %% [markdown]
# ## Forgetting against gain
#
# A recipe that changes the model little forgets little. Only at equal gain is less forgetting a
# virtue, so each recipe is a point: what it gains on its own dataset, and what it loses of
# knowledge.

# %%
domain_forgetting.show_plane(page)

# %% [markdown]
# ## The comparison

# %% [markdown]
# ## Answer

# %%
answers.answer(page, domain_forgetting)

# %% [markdown]
# ## What differs from the reference study

# %%
say(
    prose.differences(
        page, ("splits", "shots", "own_sets", "stop"), *domain_forgetting.differences(page)
    )
)

# %% [markdown]
# ## What this does not show

# %%
say(
    prose.limits(
        page,
        "In and out of domain are as the real datasets' partners differ: in topic, in style, or "
        "in both. The two are not separated here.",
        "Forgetting is what a prompt no longer brings out. Whether it is gone from the weights is "
        "another question.",
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
table(answers.compared(domain_forgetting, page, page.otherwise(margin=0.1, sets=[])))
