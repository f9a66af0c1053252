"""Train a detector on one generator's faces, test it on every generator, report.

``python train.py --help`` lists the settings. ``forensics/programs/train.py`` is the program.
"""
# PYTHON_ARGCOMPLETE_OK

from forensics import programs

if __name__ == "__main__":
    programs.run("train")
