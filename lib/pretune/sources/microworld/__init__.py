"""A small generated world: what is true in it (`world`), text about it (`text`), and its
datasets (`datasets`).
"""
