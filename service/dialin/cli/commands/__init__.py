"""The commands, one module for each group of them.

A module registers its commands with `add(commands)`. Its imports of anything heavy stand inside the functions that run
the commands, so that `dialin --help` loads none of them.
"""
