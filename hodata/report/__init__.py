"""What people look at: tables, contact sheets and a page that shows what is in a set of shards."""

from hodata.report.draw import Tile, grid, overlay, save_png
from hodata.report.page import html_page
from hodata.report.pick import spread_rows
from hodata.report.sheet import contact_sheet
from hodata.report.tables import inspect_summary, inspect_tables
from hodata.report.worst import MEASURES, worst_rows, worst_sheet

__all__ = [
    "MEASURES",
    "Tile",
    "contact_sheet",
    "grid",
    "html_page",
    "inspect_summary",
    "inspect_tables",
    "overlay",
    "save_png",
    "spread_rows",
    "worst_rows",
    "worst_sheet",
]
