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
# # 10. Knowledge injection: how does a fact get in, and what does that cost?

# %% tags=["parameters"]
study = "knowledge"  # a file under params/, without its ending
checkpoint = "all"  # this finding has a page of all checkpoints only
margin = 0.05  # the smallest change of a score that counts
sets = []  # names of the datasets to look at; empty: all

# %%
from pretune.analysis import teaching
from pretune.analysis.display import say, table
from pretune.analysis.theme import use_theme
from pretune.findings import knowledge_injection
from pretune.report import answers, material, prose
from pretune.report.open import open_results

use_theme()
# measures what is missing, nothing else
page = open_results(study, "10_knowledge_injection", checkpoint, margin, sets)
answers.summary(page, knowledge_injection)

# %% [markdown]
# ## The question
#
# A model has to know something that it does not. It can be told in the prompt, trained on a text
# that says it, or tuned on questions about it. Ovadia et al. (arXiv 2312.05934) find that a passage
# in the prompt beats training, and that training wants many wordings. Allen-Zhu & Li (2309.14316)
# find that a fact that pre-training said in one wording only is stored and cannot be had: tuned on
# questions about other people, a model answers 10 % where it answers 97 % had the fact been said in
# five wordings and orders. Gekhman et al. (2405.05904) find that facts which a model does not know
# are learnt slowly, and that once they are, it is wrong more often about those that it did know.
#
# Here the three are asked together, along pre-training, and of a generated register of people, of
# which it is known who was told of, how, and how often. So: how must pre-training tell a fact that
# tuning can bring out? By which way do new facts get in, and at what cost in old ones? And does any
# of that change with more pre-training?
#
# **What would count as an answer.** Recall of facts that no question in tuning was about, beside a
# control that nothing ever said. Every way beside every other, on the same new facts, with what it
# takes from old ones.

# %% [markdown]
# ## The claims, and the rules that judge them
#
# *Recall* is the share of questions that are answered with the right words, by ROUGE-L: an answer
# with other words beside it counts less. *Held* people were told of in pre-training, and no
# question in training is about one of them. A claim about what only a generated register tells is
# not asked of other studies.
#
# **Claim 10a.** A fact must be said in several ways in pre-training to be had after tuning.
# **Rule, fixed before the data.** Recall of facts of held people, told of in five wordings and
# orders, minus the same in one, lies above .05 with its 95 % interval: equally many exposures,
# after tuning on questions about the other half of people, at late.
#
# **Claim 10b.** A passage in the prompt beats tuning on the fact. **Rule.** Recall of new facts by
# the untuned model, with the passage among others in its prompt, minus that of a tuned one without
# any, lies above .05 with its interval, at late. The tuned one is that which recalls most of them:
# chosen by the same data, it is the hardest to beat.
#
# **Claim 10c.** Teaching new facts costs old ones. **Rule.** Recall of old facts before teaching
# minus after it lies above .05 with its interval, at the fewest epochs after which more than half
# of the new facts are recalled, at late; mean over the ways that train all weights on new facts and
# nothing beside. Asked of those with which half of them are.
#
# **Claim 10d.** More pre-training makes new facts cheaper. **Rule.** Doublings of exposures until
# half of the new facts are recalled, at early minus at late, lie above .25 with their interval.
# Asked of recipes that reach half at both, and not with the fewest epochs already; between two
# numbers of epochs recall is taken to rise on a line over doublings.

# %% [markdown]
# ## What was measured
#
# Into the models that recipes say, new facts are put: as text, continuing pre-training, as
# questions, or both; untuned, the same models are asked with passages in the prompt. *Early* is the
# first checkpoint after step 0 at which numbers of epochs are compared; *late* the mean of the
# last, neighbouring ones.

# %%
say(teaching.who_was_told(page))
say(f"{teaching.how_asked(page)} {prose.intervals(page)}")
material.introduce(page)

# %% [markdown]
# Every number below is computed from this table and from the rows of the measure `sampling`, which
# `page.measured("sampling")` gives: a row for each fact and prompt, which says whether the greedy
# answer is right, and how many of those drawn at a temperature of .5.

# %%
scores = page.frame()
material.head(scores)

# %% [markdown]
# ## A first look
#
# What does an untuned model answer when it is asked for facts that it was told, or was not? The
# *class* of a fact is read off answers to several prompts, as Gekhman et al. read it: *highly
# known* where every greedy answer is right, *maybe* where some is, *weakly* where only some that
# were drawn are. Beside it stands how often the fact was told.

# %%
table(teaching.known(page))

# %% [markdown]
# Old facts by class at late, and how often each is recalled once the model was tuned on questions
# about other people: a fact that is not said may be stored all the same.

# %%
table(teaching.by_class(page))

# %% [markdown]
# ## Why that is not enough
#
# What a model says when it is asked depends on whether it was ever asked. Tuned on questions about
# other people, it shows what it has, if the fact was said in several ways:

# %%
table(knowledge_injection.by_telling(page))

# %% [markdown]
# By kind of fact, in the order in which a text tells them that never changes its order. The first
# stands beside the name; whoever is told of in one wording has the others after those before them.

# %%
table(knowledge_injection.by_fact(page))

# %% [markdown]
# ## The comparison
#
# New facts, by every way: in the prompt of the untuned model, and by training. *Never told of* is
# the control: what is right about them is right by chance.

# %%
table(teaching.ways_in(page))

# %%
say(f"{teaching.control(page)} {teaching.retrieved(page)}")

# %% [markdown]
# The same as a picture: a good way is high, and not far to the left.

# %%
knowledge_injection.show_ways(page)

# %% [markdown]
# How often must a new fact be told, at an early and at a late checkpoint, and what happens to old
# ones meanwhile? Each number of epochs is a training of its own, whose rate falls to nothing at its
# end.

# %%
knowledge_injection.show_exposures(page)

# %% [markdown]
# Tuned on questions, of which a share is about facts that the model cannot know: is it wrong about
# those that it does know? With few epochs (stopped early) and with many; and with “unknown” as the
# answer to what it cannot know.

# %%
table(teaching.unknown_rows(page))

# %% [markdown]
# ## What to take home
#
# The best of the ways that there are, by what is asked of the facts. Best is by recall of new
# facts, on the numbers shown; what it costs stands beside. How many facts there are, or how often
# they change, was not varied: that says which ways there are.

# %%
table(teaching.decisions(page))

# %% [markdown]
# ## Answer

# %%
answers.answer(page, knowledge_injection)

# %% [markdown]
# ## What differs from the reference studies

# %%
say(prose.differences(page, (), *knowledge_injection.differences(page)))

# %% [markdown]
# ## What this does not show

# %%
say(prose.limits(page, teaching.not_shown(page)))

# %% [markdown]
# ## Change this
#
# What stays when a set is left out? Change `sets` and run the cell, or set it above and run the
# whole notebook. `scores` is an ordinary DataFrame, and so is `page.measured("sampling")`.

# %%
table(answers.compared(knowledge_injection, page, page.otherwise(margin=0.1, sets=[])))
