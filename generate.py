"""Train a generator on real faces, then write generated images: a source for ``train.py``.

``python generate.py --help`` lists the settings. ``forensics/programs/generate.py`` is the program.
"""
# PYTHON_ARGCOMPLETE_OK

from forensics import programs

if __name__ == "__main__":
    programs.run("generate")
