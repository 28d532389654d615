"""What a study trains and looks at, and what that costs: a pure function of the study, its
checkpoints, its data and what its findings need.
"""
