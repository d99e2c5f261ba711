"""What `hotrain.evaluate` counts, the figures that follow from counts, and how people are told.

metrics, boundary, hand_regions: counts of one sample; figures, intervals, comparison: of many; eval_tables, report_page
"""
