"""What the notebooks show: `page` holds what they share, and one module a finding holds its
tables, figures and verdicts.
"""
