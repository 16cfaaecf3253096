"""Replaces FLUX's modulation layers by constants of one time (``fold``, ``folded_flux``) or a table of several (``table``)."""
