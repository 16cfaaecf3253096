"""FLUX's modulation layers as constants: folded at one time (``fold``, ``folded_flux``), or a table of several (``table``)."""
