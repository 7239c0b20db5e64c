"""Reports that people read: one self-contained HTML file with tables, retrieval grids and charts.

What belongs here turns results into pictures and text; nothing here computes a metric.
"""
