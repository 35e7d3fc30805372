"""All drawing: masks on their image, plots, contact sheets, and the parts of HTML pages.

It knows pixels and colours; it refuses to know where masks and figures come from.
"""
