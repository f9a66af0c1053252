"""The commands that take files and folders: each module adds one to the parser, and runs it.

All slow imports are left to the command that needs them, so that help and a shell's completion
answer at once.
"""
