"""Test trained detectors on other sources, with the thresholds from their own validation images.

``python evaluate.py --help`` lists the settings. ``forensics/programs/evaluate.py`` is the program.
"""
# PYTHON_ARGCOMPLETE_OK

from forensics import programs

if __name__ == "__main__":
    programs.run("evaluate")
