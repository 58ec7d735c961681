"""The commands of `driftline`, a module for each subject.

What a command needs is imported inside it: `driftline --help` must not wait for scikit-learn.
"""
