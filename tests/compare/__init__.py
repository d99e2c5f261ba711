"""`make compare`: the reference project's recipe against ours, on miniature data, under one budget.

Everything runs through the public commands; nothing here is imported by the packages.
"""
