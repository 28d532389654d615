"""pretune: how pre-training and fine-tuning of language models depend on each other.

params -> Study -> cells (checkpoint, recipe, seed) -> records (one row per scored item) ->
notebooks -> site. Data flows one way; a module imports only what lies before it on that way.
torch is loaded where models are, nowhere else.
"""
