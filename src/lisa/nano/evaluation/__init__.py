"""What is measured of lisa-nano: test sets of what training left out, ablations, a page of results.

It knows models that are finished; it refuses to change their weights.
"""
