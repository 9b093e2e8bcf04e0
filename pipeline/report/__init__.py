"""The report of a run: one self-contained HTML page, the same summary in the terminal, and the figures.

data.py       what it is made from, and how numbers are put into words
page.py       the page, from its templates; shell.py: what every page of Holdfast is put into; examples.py: texts,
              where asked for
glance.py     the first screen; view.py: the table of arms; prices.py, scaled.py: the price, in the run and beyond it
unreached.py  why an arm has no price; evidence.py: how sure; scope.py: what was not tested; claims.py: controls,
              budget, limits
planned.py    subject, evals, digests; judges.py, ways.py, searched.py, gone.py: judges, wordings, searches, destroyed
              weights
figures.py    the figures, with ink.py (colours, marks), legend.py, path.py and path_labels.py (capability against
              refusal)
panels.py     arms × seeds; burn.py: the budget; staircase.py: seeds over dose; canvas.py: what these drawings share
terminal.py   the same in the terminal
"""

from pipeline.report.data import ReportData
from pipeline.report.figures import figures
from pipeline.report.page import render, write_report
from pipeline.report.terminal import print_summary

__all__ = ["ReportData", "figures", "print_summary", "render", "write_report"]
