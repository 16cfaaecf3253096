"""Replaces FLUX's modulation layers by constants of one time (``fold``, ``folded``) or a table of several (``table``)."""
