"""How good generated pictures are: distances, coverage, copies, and what they say together.

Works on arrays of pictures and of features; knows no run, no config and no training loop.
"""
