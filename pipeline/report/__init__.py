"""The report of a run: one self-contained HTML page, the same summary in the terminal, and the figures."""

from pipeline.report.data import ReportData
from pipeline.report.figures import figures
from pipeline.report.page import render, write_report
from pipeline.report.terminal import print_summary

__all__ = ["ReportData", "figures", "print_summary", "render", "write_report"]
