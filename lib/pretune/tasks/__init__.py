"""Datasets as tasks: how a row becomes a prompt with completions that compete.

One file per family (`summary`, `inference`, `choice`) says how a row is shown in the three
formats of the reference study; `registry` says which datasets there are; `rows` reads them. The
protocol here is the corrected one: a prompt ends without a space and a completion begins with
one, so that both tokenise as they do in running text.
"""
